"""ImageNet's tars become class folders, whole or not at all, and a run that was killed goes on."""

import io
import os
import subprocess
import sys
import tarfile

import pytest
from data.archive_files import (
    CLASS_SIZES,
    VAL_LABELS,
    WNIDS,
    image_bytes,
    read_tree,
    tar_bytes,
    train_files,
    val_files,
    write_devkit,
    write_train,
    write_val,
)
from helpers import PROJECT, call_here

from scripts import prepare_imagenet
from src.data import unpacking
from src.data.unpacking import unpack

SCRIPT = "scripts/prepare_imagenet.py"
TRAIN = {f"train/{wnid}/{name}": data for wnid, images in train_files().items() for name, data in images.items()}
VAL = {f"val/{WNIDS[label]}/{name}": data for label, (name, data) in zip(VAL_LABELS, val_files().items())}


@pytest.fixture
def folder(tmp_path):
    """A folder with all three archives."""
    write_train(tmp_path / "train.tar")
    write_val(tmp_path / "val.tar")
    write_devkit(tmp_path / "devkit.tar.gz")
    return tmp_path


def prepare(folder, *arguments):
    return call_here(SCRIPT, "out", *arguments, cwd=folder)


def prepare_train(folder):
    return prepare(folder, "--train", "train.tar", "--partial")


def assert_fails(result, message):
    assert (result.returncode, result.stderr.count("\n")) == (2, 1) and message in result.stderr, result.stderr


def test_both_splits(folder):
    result = prepare(
        folder, "--train", "train.tar", "--val", "val.tar", "--labels", "devkit.tar.gz", "--partial", "--jobs", 3
    )
    assert result.returncode == 0, result.stderr
    assert read_tree(folder / "out") == {**TRAIN, **VAL}
    assert result.stdout.splitlines() == [
        "out: 6 folders filled",
        "out/train: 9 images in 3 classes",
        "out/val: 5 images in 3 classes",
    ]
    again = prepare_train(folder)
    assert again.stdout.splitlines()[0] == "out: 3 of 3 folders are there already"
    assert prepare(folder, "--check", "--partial").returncode == 0


def test_a_list_of_labels(folder):
    lines = [f"{name} {WNIDS[label]}" for name, label in zip(val_files(), VAL_LABELS)]
    (folder / "labels.txt").write_text("\n".join(lines))
    result = prepare(folder, "--val", "val.tar", "--labels", "labels.txt", "--partial")
    assert result.returncode == 0 and read_tree(folder / "out") == VAL


def test_counts_are_those_published(folder, monkeypatch):
    assert_fails(prepare(folder, "--train", "train.tar"), "train.tar: has 3 classes, published are 1,000; --partial")
    labels = ("--labels", "devkit.tar.gz")
    assert_fails(prepare(folder, "--val", "val.tar", *labels), "val.tar: has 5 images, published are 50,000")
    assert not (folder / "out").exists()
    monkeypatch.setattr(prepare_imagenet, "load_classes", lambda: (WNIDS, WNIDS))
    monkeypatch.setattr(prepare_imagenet, "IMAGES", {"train": sum(CLASS_SIZES), "val": len(VAL_LABELS)})
    monkeypatch.setattr(prepare_imagenet, "PER_CLASS", {"train": (2, 4), "val": (1, 2)})
    arguments = ("--train", "train.tar", "--val", "val.tar", *labels)
    assert prepare(folder, *arguments).returncode == 0
    assert prepare(folder, "--check").returncode == 0
    (folder / f"out/train/{WNIDS[0]}/{WNIDS[0]}_0.JPEG").unlink()
    assert_fails(prepare(folder, "--check"), "out/train: has 8 images, published are 9")
    (folder / f"out/train/{WNIDS[1]}/{WNIDS[1]}_0.JPEG").unlink()
    assert_fails(prepare(folder, "--check"), f"out/train/{WNIDS[1]}: has 1 images, published are 2 to 4; remove it")


def test_check_decodes_every_image(folder):
    prepare_train(folder)
    for number in (1, 3):
        path = folder / f"out/train/{WNIDS[0]}/{WNIDS[0]}_{number}.JPEG"
        os.truncate(path, path.stat().st_size - 40)
    message = f"out/train/{WNIDS[0]}/{WNIDS[0]}_1.JPEG: is not a whole image: image file is truncated"
    result = prepare(folder, "--check", "--partial")
    assert_fails(result, message)
    assert "; 1 more of 9 are bad, too" in result.stderr


def test_what_is_there_is_not_overwritten(folder):
    own = folder / "out/train" / WNIDS[1]
    own.mkdir(parents=True)
    (own / "mine.JPEG").write_bytes(image_bytes(77))
    assert prepare_train(folder).returncode == 0
    assert list(own.iterdir()) == [own / "mine.JPEG"]
    assert len(read_tree(folder / "out")) == 4 + 1 + 3


@pytest.mark.parametrize("length", range(0, 41 * 512, 512 * 3 + 100))
def test_a_tar_cut_off_anywhere_writes_nothing(folder, length):
    size = (folder / "train.tar").stat().st_size
    assert size >= 41 * 512
    os.truncate(folder / "train.tar", length)
    result = prepare_train(folder)
    assert_fails(result, "error: train.tar: ")
    assert not (folder / "out").exists()


def test_a_tar_cut_off_between_two_members(folder):
    with tarfile.open(folder / "val.tar") as tar:
        last = tar.getmembers()[-1]
    os.truncate(folder / "val.tar", last.offset)
    result = prepare(folder, "--val", "val.tar", "--labels", "devkit.tar.gz", "--partial")
    assert_fails(result, "val.tar: is damaged or cut off behind ILSVRC2012_val_00000004.JPEG")


def test_damage_inside_names_the_file(folder):
    def assert_damaged(change, message):
        files = {f"{wnid}.tar": bytearray(tar_bytes(images)) for wnid, images in train_files().items()}
        change(files[f"{WNIDS[1]}.tar"])
        (folder / "train.tar").write_bytes(tar_bytes({name: bytes(data) for name, data in files.items()}))
        assert_fails(prepare_train(folder), f"train.tar: {WNIDS[1]}.tar: {message}")
        assert not (folder / "out/train" / WNIDS[1]).exists()

    def fill(start, end):
        return lambda data: data.__setitem__(slice(start, end), b"x" * (end - start))

    with tarfile.open(fileobj=io.BytesIO(tar_bytes(train_files()[WNIDS[1]]))) as tar:
        second = tar.getmembers()[1]
    assert_damaged(fill(0, 512), "is damaged or cut off")
    assert_damaged(fill(512, 600), f"{WNIDS[1]}_0.JPEG: is not an image")
    assert_damaged(fill(second.offset, second.offset + 512), f"is damaged or cut off behind {WNIDS[1]}_0.JPEG")
    assert_damaged(lambda data: data.__delitem__(slice(second.offset_data + 100, None)), f"{WNIDS[1]}_1.JPEG: is cut")


def entry(kind, name="a.JPEG", target="../../outside"):
    result = tarfile.TarInfo(name)
    result.type, result.linkname = kind, target
    return result


HOSTILE = {
    "above": {"../evil.JPEG": image_bytes(1)},
    "absolute": {"/tmp/evil.JPEG": image_bytes(1)},
    "above, later": {"x/../../evil.JPEG": image_bytes(1)},
    "a drive": {"C:evil.JPEG": image_bytes(1)},
    "back slashes": {"..\\evil.JPEG": image_bytes(1)},
    "a link": {"a.JPEG": entry(tarfile.SYMTYPE)},
    "a hard link": {"a.JPEG": entry(tarfile.LNKTYPE)},
    "a pipe": {"a.JPEG": entry(tarfile.FIFOTYPE)},
    "a device": {"a.JPEG": entry(tarfile.CHRTYPE)},
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["inside", "outside", "val"])
def test_hostile_tars_write_nothing_outside(name, place, folder):
    reasons = ("leads out of the archive's folder", "is a link or a device, which no dataset has")
    before = set(read_tree(folder))
    if place == "inside":
        write_train(folder / "train.tar", {WNIDS[0]: {**train_files()[WNIDS[0]], **HOSTILE[name]}})
    elif place == "outside":
        (folder / "train.tar").write_bytes(tar_bytes({f"{WNIDS[0]}.tar": tar_bytes({}), **HOSTILE[name]}))
    else:
        write_val(folder / "val.tar", {**val_files(), **HOSTILE[name]})
    arguments = ("--val", "val.tar", "--labels", "devkit.tar.gz") if place == "val" else ("--train", "train.tar")
    result = prepare(folder, *arguments, "--partial")
    assert result.returncode == 2 and any(reason in result.stderr for reason in reasons), result.stderr
    assert set(read_tree(folder)) == before


def test_the_tar_of_the_other_split(folder):
    assert_fails(prepare(folder, "--train", "val.tar", "--partial"), "val.tar: holds no tars of classes, such as n014")
    result = prepare(folder, "--val", "train.tar", "--labels", "devkit.tar.gz", "--partial")
    assert_fails(result, "train.tar: holds no images at its top")
    assert not (folder / "out").exists()


def test_other_tars(folder):
    write_train(folder / "train.tar", {"n99999999": {"a.JPEG": image_bytes(1)}})
    assert_fails(prepare_train(folder), "train.tar: n99999999.tar: is not named after a class of ImageNet-1k")
    (folder / "train.tar").write_bytes(tar_bytes({f"{WNIDS[0]}.tar": b""}))
    assert_fails(prepare_train(folder), f"train.tar: {WNIDS[0]}.tar: is damaged or cut off")
    twice = tar_bytes({"a.JPEG": image_bytes(1), "./a.JPEG": image_bytes(2)})
    (folder / "train.tar").write_bytes(tar_bytes({f"{WNIDS[0]}.tar": twice}))
    assert_fails(prepare_train(folder), f"train.tar: {WNIDS[0]}.tar: a.JPEG: is there twice")
    assert_fails(prepare(folder, "--train", "."), "error: .: is a folder, an archive is needed")
    assert_fails(prepare(folder, "--train", "none.tar"), "none.tar: cannot be read: No such file")


def test_other_development_kits(folder):
    def assert_kit(content, message):
        (folder / "devkit.tar.gz").write_bytes(content)
        arguments = ("--val", "val.tar", "--labels", "devkit.tar.gz", "--partial")
        assert_fails(prepare(folder, *arguments), f"devkit.tar.gz{message}")

    whole = (folder / "devkit.tar.gz").read_bytes()
    assert_kit(whole[: len(whole) // 2], ": is not a whole development kit")
    assert_kit(b"x", ": is not a whole development kit")
    assert_kit(tar_bytes({"a.txt": b"x"}, "w:gz"), ": is not the development kit: it holds no ILSVRC2012_validation")
    assert_kit(tar_bytes({"zeros": bytes(2**27)}, "w:gz"), ": zeros: is too large for the development kit")
    (folder / "devkit.tar.gz").write_bytes(whole)
    write_val(folder / "val.tar", {"a.JPEG": image_bytes(1)})
    assert_kit(whole, "/ILSVRC2012_validation_ground_truth.txt: has 5 labels for 1 images")


KILL = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from scripts import prepare_imagenet
from src.data import unpacking
write, left = unpacking._write, [int(sys.argv[2])]
def kill(folder, item):
    left[0] -= 1
    if left[0] == 0:
        (folder.unfinished / f"{item[0]}.1{unpacking.TEMPORARY}").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return write(folder, item)
unpacking._write = kill
sys.argv[1:] = ["out", "--train", "train.tar", "--partial", "--jobs", "1"]
prepare_imagenet.main()
"""


def test_killed_again_and_again_it_ends_the_same(folder):
    seen = []
    for count in (3, 3, 3):
        command = [sys.executable, "-c", KILL, str(PROJECT), str(count)]
        assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == -9
        seen.append(len([name for name in read_tree(folder / "out") if name.endswith(".JPEG")]))
    assert seen == [2, 4, 6]  # nothing is written twice
    (folder / f"out/train/.{WNIDS[2]}.tmp/{WNIDS[2]}_0.JPEG").write_bytes(b"of a power cut")
    result = prepare_train(folder)
    assert result.returncode == 0 and read_tree(folder / "out") == TRAIN


def test_an_error_in_a_thread_ends_the_run(folder, monkeypatch):
    def refuse(folder, item):
        if item[0] == f"{WNIDS[1]}_1.JPEG":
            raise OSError(5, "Input/output error", "disk")
        return write(folder, item)

    write = unpacking._write
    monkeypatch.setattr(unpacking, "_write", refuse)
    assert_fails(prepare_train(folder), "disk: Input/output error")
    assert sorted(path.name for path in (folder / "out/train").iterdir()) == [f".{WNIDS[1]}.tmp", WNIDS[0]]
    monkeypatch.undo()
    assert prepare_train(folder).returncode == 0 and read_tree(folder / "out") == TRAIN


def test_a_full_disk_is_one_line(folder, monkeypatch):
    usage = lambda place: type("Usage", (), {"free": 1000})  # noqa: E731
    monkeypatch.setattr(unpacking.shutil, "disk_usage", usage)
    assert_fails(prepare_train(folder), "out: needs 0.0 GB of space, 0.0 GB are free")
    assert not (folder / "out").exists()
    monkeypatch.undo()

    def fill(source, target):
        raise OSError(28, "No space left on device", str(source))

    monkeypatch.setattr(unpacking.os, "replace", fill)
    message = "cannot be written: No space left on device; once there is space, the same command goes on"
    assert_fails(prepare_train(folder), message)
    assert read_tree(folder / "out") == {}
    monkeypatch.undo()
    assert prepare_train(folder).returncode == 0 and read_tree(folder / "out") == TRAIN


def test_nothing_to_unpack(tmp_path, capsys):
    unpack(tmp_path / "out", [], 1)
    assert capsys.readouterr().out == ""
