"""Image files: which count as such, in which order, and that every mode becomes RGB."""

import numpy as np
import pytest
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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_any_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.tiff" if mode == "F" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.full((5, 4), 40000, np.uint16)).save(path)
    else:
        Image.new("RGB", (4, 5), "red").convert("L" if mode == "F" else "RGB").convert(mode).save(path)
    image = load_image(path)
    assert image.mode == "RGB" and image.size == (4, 5)
