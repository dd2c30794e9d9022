"""ADE20K's zip in the layout of the segmentation task, each image and mask checked."""

import io

import numpy as np
import pytest
from data.archive_files import ade_files, image_bytes, read_tree, write_zip
from helpers import call_here
from PIL import Image

from scripts import prepare_ade20k

SCRIPT = "scripts/prepare_ade20k.py"
TOP = "ADEChallengeData2016/"
MASK = f"{TOP}annotations/training/ADE_train_00000001.png"


def prepare(folder, files, *arguments):
    write_zip(folder / "ade.zip", files)
    return call_here(SCRIPT, "out", "--archive", "ade.zip", *arguments, cwd=folder)


def check(folder, *arguments):
    return call_here(SCRIPT, "--check", "out", *arguments, cwd=folder)


def assert_fails(result, message):
    assert (result.returncode, result.stderr.count("\n")) == (2, 1) and message in result.stderr, result.stderr


def test_the_layout(tmp_path):
    result = prepare(tmp_path, ade_files(), "--partial")
    assert result.returncode == 0, result.stderr
    images = {name.removeprefix(TOP): data for name, data in ade_files().items() if name.endswith(("jpg", "png"))}
    assert read_tree(tmp_path / "out") == images and len(images) == 10
    lines = [
        "out: 4 folders filled",
        "out/images/training: 3 images, each with a mask of its size and values from 0 to 150",
        "out/images/validation: 2 images, each with a mask of its size and values from 0 to 150",
    ]
    assert result.stdout.splitlines() == lines
    assert check(tmp_path, "--partial").stdout.splitlines() == lines[1:]
    assert prepare(tmp_path, ade_files(), "--partial").stdout.splitlines() == [
        "out: 4 of 4 folders are there already",
        *lines[1:],
    ]


def test_counts_are_those_published(tmp_path, monkeypatch):
    message = "ade.zip: ADEChallengeData2016/images/training: has 3 files, published are 20,210; --partial"
    assert_fails(prepare(tmp_path, ade_files()), message)
    monkeypatch.setattr(prepare_ade20k, "IMAGES", {"train": 3, "val": 2})
    assert prepare(tmp_path, ade_files()).returncode == 0
    (tmp_path / "out/images/validation/ADE_valid_00000001.jpg").unlink()
    assert_fails(check(tmp_path), "out/images/validation: has 1 images, published are 2")


def mask(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


BAD_MASKS = {
    "has the value 151, allowed are 0 (other) to 150": mask(np.full((16, 20), 151, np.uint8)),
    "is of 16x20 pixels, its image of 20x16": mask(np.zeros((20, 16), np.uint8)),
    "has 3 channels, a mask has one": mask(np.zeros((16, 20, 3), np.uint8)),
    "is not a whole image": image_bytes(1, kind="PNG")[:-100],
}


@pytest.mark.parametrize("message", BAD_MASKS)
def test_bad_masks_are_named_and_counted(message, tmp_path):
    other = MASK.replace("00000001", "00000002")
    result = prepare(tmp_path, {**ade_files(), MASK: BAD_MASKS[message], other: BAD_MASKS[message]}, "--partial")
    assert_fails(result, f"{MASK.replace(TOP, 'out/')}: {message}")
    assert "; 1 more of 3 are bad, too" in result.stderr
    assert_fails(check(tmp_path, "--partial"), message)


def test_what_the_archive_lacks(tmp_path):
    files = ade_files()
    del files[MASK]
    result = prepare(tmp_path, files, "--partial")
    assert_fails(result, "ADE_train_00000001.jpg has no mask, expected out/annotations/training/ADE_train_00000001.png")
    files = {name: data for name, data in ade_files().items() if "annotations/validation" not in name}
    assert_fails(prepare(tmp_path, files), "ade.zip: ADEChallengeData2016/images/training: has 3 files")
    assert_fails(
        prepare(tmp_path, files, "--partial"), "holds no images in ADEChallengeData2016/annotations/validation/"
    )


def test_a_mask_that_is_no_image(tmp_path):
    assert_fails(prepare(tmp_path, {**ade_files(), MASK: b"x"}, "--partial"), f"ade.zip: {MASK}: is not an image")
    assert not (tmp_path / "out/annotations/training").exists()
    assert prepare(tmp_path, ade_files(), "--partial").returncode == 0


def test_hidden_files_and_other_folders_are_left_out(tmp_path):
    extra = {f"__MACOSX/{MASK}": b"x", f"{TOP}images/training/._a.jpg": b"x", f"{TOP}images/training/b/a.jpg": b"x"}
    assert prepare(tmp_path, {**ade_files(), **extra}, "--partial").returncode == 0
    assert len(read_tree(tmp_path / "out")) == 10


def test_a_link_outside_is_not_followed(tmp_path):
    """The folder of the dataset is the user's, and so is a link in it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "images").symlink_to(tmp_path / "elsewhere")
    assert prepare(tmp_path, ade_files(), "--partial").returncode == 0
    assert len(read_tree(tmp_path / "elsewhere")) == 5
