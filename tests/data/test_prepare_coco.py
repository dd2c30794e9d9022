"""COCO's zips in the layout of the detection task, each annotation and image checked."""

import json
import os
import stat
import subprocess
import sys
import zipfile
import zlib

import pytest
from data.archive_files import coco_content, coco_images, image_bytes, read_tree, write_coco, write_zip
from helpers import PROJECT, call_here

from scripts import prepare_coco
from src.data import archives

SCRIPT = "scripts/prepare_coco.py"
IMAGES = {name: data for split in ("train", "val") for name, data in coco_images(split).items() if data}


def prepare(folder, *arguments):
    return call_here(SCRIPT, "out", *arguments, cwd=folder)


def assert_fails(result, message):
    assert (result.returncode, result.stderr.count("\n")) == (2, 1) and message in result.stderr, result.stderr


def test_the_layout_and_the_report(tmp_path):
    result = prepare(tmp_path, *write_coco(tmp_path), "--partial")
    assert result.returncode == 0, result.stderr
    tree = read_tree(tmp_path / "out")
    for split in ("train", "val"):
        assert json.loads(tree.pop(f"annotations/instances_{split}2017.json")) == coco_content(split)
    assert tree == IMAGES
    kinds = (
        "annotations: 4, crowds: 1, without an area: 1, less than a pixel wide or high in the image: 1, "
        "cut off at the image's edge: 1, images without annotations: 1"
    )
    lines = result.stdout.splitlines()
    assert lines[:3] == ["out: 3 folders filled", "out/train2017: 3 images, 2 categories", kinds]
    assert prepare(tmp_path, "--check", "--partial").stdout.splitlines() == lines[1:]


def test_one_split_and_later_the_other(tmp_path):
    train, val, annotations = write_coco(tmp_path)
    assert prepare(tmp_path, train, annotations, "--partial").returncode == 0
    assert prepare(tmp_path, "--check", "--partial").stdout.count("images, 2 categories") == 1
    assert_fails(prepare(tmp_path, "--check"), "has 3 images, published are 118,287")
    result = prepare(tmp_path, val, annotations, "--partial")
    assert result.stdout.splitlines()[:2] == ["out: 1 of 2 folders are there already", "out: 1 folders filled"]


def test_counts_are_those_published(tmp_path, monkeypatch):
    flags = write_coco(tmp_path)
    assert_fails(prepare(tmp_path, *flags), "train2017.zip: has 3 images, published are 118,287; --partial")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(prepare_coco, "IMAGES", {"train": 3, "val": 3})
    assert_fails(prepare(tmp_path, *flags), "instances_train2017.json: has 2 categories, published are 80")
    monkeypatch.setattr(prepare_coco, "CATEGORIES", 2)
    assert prepare(tmp_path, *flags).returncode == 0


def changed(change):
    """Annotations with a mistake."""
    content = coco_content("train")
    change(content)
    return content


MISTAKES = {
    "images id 3: {}: no such file": lambda content: content["images"][2].update(file_name="none.jpg"),
    "category_id 9 is not in the file": lambda content: content["annotations"][0].update(category_id=9),
    "annotations id 0 is there twice": lambda content: content["annotations"][1].update(id=0),
    "has a negative side": lambda content: content["annotations"][0].update(bbox=[1, 1, -2, 2]),
    "is 20x16, its annotations say 21x16": lambda content: content["images"][0].update(width=21),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_in_annotations(message, tmp_path):
    flags = write_coco(tmp_path, train=changed(MISTAKES[message]))
    assert_fails(prepare(tmp_path, *flags, "--partial"), message.format("out/train2017/none.jpg"))


def test_broken_images_are_counted(tmp_path):
    flags = write_coco(tmp_path)
    files = coco_images("val")
    for number in (1, 3):
        files[f"val2017/val{number}.jpg"] = files[f"val2017/val{number}.jpg"][:-50]
    write_zip(tmp_path / "val2017.zip", files)
    result = prepare(tmp_path, *flags, "--partial")
    assert_fails(result, "out/val2017/val1.jpg: is not a whole image")
    assert "; 1 more of 3 are bad, too" in result.stderr


def damage(path, content):
    """Change the bytes of a zip where it holds `content`."""
    data = path.read_bytes()
    assert data.count(content) == 1
    path.write_bytes(data.replace(content, bytes(byte ^ 1 for byte in content)))


def test_damaged_zips(tmp_path):
    flags = write_coco(tmp_path)
    path = tmp_path / "val2017.zip"
    whole = path.read_bytes()

    def assert_damaged(message):
        assert_fails(prepare(tmp_path, *flags, "--partial"), f"val2017.zip: {message}")
        assert not (tmp_path / "out/val2017").exists()

    for length in (0, 100, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        assert_damaged("is not a whole zip file")
    path.write_bytes(whole)
    damage(path, image_bytes((True, 2))[-50:-20])
    assert_damaged("val2017/val2.jpg: is damaged: Bad CRC-32")
    write_zip(path, {**coco_images("val"), "val2017/val2.jpg": b"<html>no image</html>"})
    assert_damaged("val2017/val2.jpg: is not an image")
    write_zip(path, {"elsewhere/val1.jpg": image_bytes(1)})
    assert_damaged("holds no images in val2017/")
    path.write_bytes(whole)
    assert prepare(tmp_path, *flags, "--partial").returncode == 0
    assert {name: data for name, data in read_tree(tmp_path / "out").items() if name.endswith("jpg")} == IMAGES


def test_damaged_annotations(tmp_path):
    flags = write_coco(tmp_path)
    with zipfile.ZipFile(tmp_path / "annotations.zip") as archive:
        info = archive.getinfo("annotations/instances_val2017.json")
    data = bytearray((tmp_path / "annotations.zip").read_bytes())
    start = info.header_offset + 30 + len(info.filename) + 5
    data[start : start + 20] = bytes(20)
    (tmp_path / "annotations.zip").write_bytes(data)
    assert_fails(prepare(tmp_path, *flags, "--partial"), "annotations.zip: annotations/instances_val2017.json: is dam")
    write_zip(tmp_path / "annotations.zip", {"annotations/instances_val2017.json": "{}"})
    assert_fails(
        prepare(tmp_path, *flags, "--partial"), "annotations.zip: holds no annotations/instances_train2017.json"
    )


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


HOSTILE = {
    "../../val2017/evil.jpg": "../../val2017/evil.jpg: leads out of the archive's folder",
    "/val2017/evil.jpg": "/val2017/evil.jpg: leads out",
    "val2017/../../evil.jpg": "leads out",
    "val2017\\..\\evil.jpg": "leads out",
    link("val2017/evil.jpg"): "val2017/evil.jpg: is a link or a device",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_write_nothing(name, tmp_path):
    flags = write_coco(tmp_path)
    write_zip(tmp_path / "val2017.zip", {**coco_images("val"), name: image_bytes(1)})
    before = set(read_tree(tmp_path))
    assert_fails(prepare(tmp_path, *flags, "--partial"), HOSTILE[name])
    assert set(read_tree(tmp_path)) == before


def test_bombs_and_secrets(tmp_path, monkeypatch):
    flags = write_coco(tmp_path)
    bomb = {**coco_images("val"), "val2017/bomb.jpg": bytes(10**7)}
    write_zip(tmp_path / "val2017.zip", bomb, zipfile.ZIP_DEFLATED)
    assert_fails(prepare(tmp_path, *flags, "--partial"), "which no dataset does")
    monkeypatch.setattr(archives, "MAX_RATIO", 10**6)
    monkeypatch.setattr(archives, "MAX_FILE", 10**6)
    message = "val2017/bomb.jpg: has 10,000,000 bytes, at most 1,000,000 are allowed"
    assert_fails(prepare(tmp_path, *flags, "--partial"), message)
    secret = write_zip(tmp_path / "val2017.zip", coco_images("val")).read_bytes()
    secret = secret.replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0")
    (tmp_path / "val2017.zip").write_bytes(secret)
    assert_fails(prepare(tmp_path, *flags, "--partial"), "is encrypted")
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_longer_than_its_entry_says(tmp_path):
    """The size in the directory is what was checked against the disk's space."""
    content = bytes(10**6)
    path = write_zip(tmp_path / "a.zip", {"a/x.bin": content}, zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    size = len(content).to_bytes(4, "little")
    short = data.replace(size, (1000).to_bytes(4, "little"))
    short = short.replace(zlib.crc32(content).to_bytes(4, "little"), zlib.crc32(bytes(1000)).to_bytes(4, "little"))
    path.write_bytes(short)
    (member,) = archives.list_zip(path)
    assert sum(map(len, member.chunks())) == member.size == 1000


KILL = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from scripts import prepare_coco
from src.data import unpacking
replace, left = os.replace, [4]
def kill(source, target):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
unpacking.os.replace = kill
sys.argv[1:] = ["out", "--jobs", "1", *sys.argv[2:]]
prepare_coco.main()
"""


def test_killed_it_goes_on_and_ends_the_same(tmp_path):
    flags = [*write_coco(tmp_path), "--partial"]
    assert prepare(tmp_path, *flags).returncode == 0
    expected = read_tree(tmp_path / "out")
    os.rename(tmp_path / "out", tmp_path / "expected")
    result = subprocess.run([sys.executable, "-c", KILL, str(PROJECT), *flags], cwd=tmp_path, check=False)
    assert result.returncode == -9
    images = tmp_path / "out" / ".train2017.tmp"
    (temporary,) = (path.name for path in images.iterdir() if path.suffix == ".tmp")
    assert temporary.startswith("train2.jpg.") and (images / "train1.jpg").is_file()
    first = (images / "train1.jpg").stat().st_ino
    result = prepare(tmp_path, *flags)
    assert result.returncode == 0 and "out: 1 of 3 folders are there already" in result.stdout
    assert read_tree(tmp_path / "out") == expected
    assert (tmp_path / "out/train2017/train1.jpg").stat().st_ino == first
