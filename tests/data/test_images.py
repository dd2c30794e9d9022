"""Image files: which count as such, in which order, and that every mode becomes RGB."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from helpers import PROJECT
from PIL import Image

from scripts.predict import list_images
from src.data.images import describe_others, find_images, load_image
from src.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Two images and three other files, one of them below; hidden files of both kinds."""
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "deep/a.JPEG"):
        Image.new("RGB", (4, 5)).save(tmp_path / name)
    for name in ("notes.txt", "c.gif", "deep/list.csv", ".DS_Store", "deep/.d.png"):
        (tmp_path / name).write_text("x")
    return tmp_path


def test_images_are_found_by_their_endings_and_others_counted(folder):
    images = [folder / "b.png", folder / "deep" / "a.JPEG"]
    assert find_images(folder) == (images, 3)
    assert describe_others(folder, 3) == (
        f"{folder}: 3 other files are left out; "
        "the endings of images are .jpg, .jpeg, .png, .bmp, .webp, .ppm, .tif, .tiff",
    )
    assert describe_others(folder, 0) == ()


def test_a_folder_without_images_is_named(folder):
    for path in find_images(folder)[0]:
        path.unlink()
    with pytest.raises(UserError, match=f"^{folder}: holds no images "):
        find_images(folder)


def test_files_and_folders_to_predict(folder):
    names = [str(folder / "notes.txt"), str(folder), str(folder / "b.png")]
    paths, notes = list_images(names)
    assert paths == [folder / "notes.txt", folder / "b.png", folder / "deep" / "a.JPEG", folder / "b.png"]
    assert notes == [*describe_others(folder, 3)]
    with pytest.raises(UserError, match="cow: no such file or folder"):
        list_images([str(folder / "cow")])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_any_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.new("RGB", (4, 5), "red").convert(mode).save(path)
    image = load_image(path)
    assert image.mode == "RGB" and image.size == (4, 5)


@pytest.mark.parametrize(("ending", "options"), [("png", {}), ("tif", {}), ("tif", {"compression": "tiff_lzw"})])
def test_16_bits_are_scaled_to_8(tmp_path, ending, options):
    levels = np.array([[0, 128, 129, 257], [32767, 40000, 65406, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a.{ending}", **options)
    pixels = np.asarray(load_image(tmp_path / f"a.{ending}"))
    assert pixels.tolist() == [[[level] * 3 for level in row] for row in [[0, 0, 1, 1], [127, 156, 254, 255]]]
    assert np.array_equal(np.asarray(load_image(tmp_path / f"a.{ending}", None)), levels)  # as a mask


def write_tiff(path, data, bits, sample_format=1, byte_order="<"):
    """Write an uncompressed TIFF file of one row of four grey pixels, which Pillow itself would not write."""
    tags = ((256, 4), (257, 1), (258, bits), (259, 1), (262, 1), (273, 122), (277, 1), (279, len(data)))
    tags = (*tags, (339, sample_format))
    header = struct.pack(f"{byte_order}2sHIH", b"II" if byte_order == "<" else b"MM", 42, 8, len(tags))
    entries = [struct.pack(f"{byte_order}HHII", tag, 4, 1, value) for tag, value in tags]
    path.write_bytes(header + b"".join(entries) + bytes(4) + data)


def test_numbers_of_12_bits_and_of_the_other_byte_order(tmp_path):
    path = tmp_path / "a.tif"
    write_tiff(path, bytes.fromhex("0007ff800fff"), bits=12)
    assert np.asarray(load_image(path))[..., 0].tolist() == [[0, 127, 128, 255]]
    write_tiff(path, bytes.fromhex("0000 0080 9c40 ffff"), bits=16, byte_order=">")
    assert np.asarray(load_image(path))[..., 0].tolist() == [[0, 0, 156, 255]]
    write_tiff(path, bytes(8), bits=16, sample_format=2)
    with pytest.raises(UserError, match="is stored as 32-bit or signed whole numbers"):
        load_image(path)


@pytest.mark.parametrize(("levels", "name"), [(np.int32, "mode I"), (np.float32, "mode F")])
def test_numbers_without_a_range_of_colours_are_refused(tmp_path, levels, name):
    Image.fromarray(np.full((5, 4), 3, levels)).save(tmp_path / "a.tif")
    with pytest.raises(
        UserError, match=rf"a\.tif: is stored as .*32-bit .* \({name}\), without a range; 8 and 16 bits"
    ):
        load_image(tmp_path / "a.tif")


# of what EXIF's orientations 1 to 8 mean: the operations that bring the stored pixels upright
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_turns_where_asked(tmp_path, orientation):
    stored = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), stored)
    turned = np.asarray(load_image(tmp_path / "a.png", exif_rotation=True))
    assert np.array_equal(turned, UPRIGHT[orientation](stored))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"no EXIF data", b"II*\0\x08\0\0\0\x01\0\x12\x01", b""])
def test_exif_data_that_cannot_be_read_turn_nothing(tmp_path, exif):
    stored = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png", exif_rotation=True)), stored)


def test_an_image_that_may_not_be_read_says_so(folder, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    path = find_images(folder)[0][0]
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(UserError, match=f"^{path}: cannot be read: Permission denied$"):
        load_image(path)


def test_only_files_that_are_seen_count(folder, monkeypatch):
    before = find_images(folder)
    (folder / ".ipynb_checkpoints").mkdir()
    Image.new("RGB", (4, 5)).save(folder / ".ipynb_checkpoints" / "b.png")
    (folder / "folder.png").mkdir()
    assert find_images(folder) == before
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to("nothing")
    assert find_images(folder) == (before[0], before[1] + 2)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=f"^{folder}: Permission denied$"):
        find_images(folder)


def test_names_of_any_characters_make_one_line(tmp_path):
    with pytest.raises(UserError) as error:
        load_image(tmp_path / "a\nb\x1b.png")
    assert str(error.value).endswith("a\\nb\\x1b.png: no such file")


def test_warnings_of_pillow_are_not_shown(tmp_path):
    Image.new("1", (10000, 9000)).save(tmp_path / "large.png")  # from 89 million pixels on Pillow warns
    code = f"from src.data.images import load_image; load_image({str(tmp_path / 'large.png')!r}, '1')"
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
