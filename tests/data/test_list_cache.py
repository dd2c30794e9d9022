"""The cache of file lists: always the lists that the disk itself gives, without listing what has not changed."""

import gzip
import json
import os
import shutil
import subprocess
import sys

import pytest
from helpers import PROJECT, write_images

from src.classification.dataset import list_class_folders
from src.config import load_config
from src.data import list_cache
from src.errors import UserError
from src.ranks import Ranks
from src.tasks import SCHEMAS, create_task


@pytest.fixture(autouse=True)
def no_age(monkeypatch):
    """Trust folders that have just changed: a file system whose clock is fine and is this machine's."""
    monkeypatch.setattr(list_cache, "MIN_AGE", 0)


@pytest.fixture
def root(tmp_path):
    write_images(tmp_path, {"train": {"ant": 3, "bee": 2, "bee/deep": 2, "cow": 2}}, size=(4, 4))
    (tmp_path / "train" / "ant" / "notes.txt").touch()
    return tmp_path / "train"


@pytest.fixture
def listed(monkeypatch):
    """The folders that were really listed."""
    folders = []

    def scan(path):
        folders.append(os.path.basename(path))
        return real(path)

    real = list_cache.scan_folder
    monkeypatch.setattr(list_cache, "scan_folder", scan)
    return folders


def lists(root, cache):
    names, paths, labels, others = list_class_folders(root, (), cache)
    return names, paths, labels.tolist(), others


def test_what_has_not_changed_is_not_listed_again(root, tmp_path, listed):
    expected = lists(root, None)
    listed.clear()
    assert lists(root, tmp_path / "cache") == expected and expected[3] == 1 and len(expected[1]) == 9
    assert sorted(listed) == ["ant", "bee", "cow", "deep"]
    (file,) = (tmp_path / "cache").iterdir()
    before = file.stat().st_ino
    assert lists(root, tmp_path / "cache") == expected and len(listed) == 4
    assert file.stat().st_ino == before  # not even written
    assert lists(root.parent / "." / "train", tmp_path / "cache")[2] == expected[2] and len(listed) == 4


def swap(root):
    (root / "ant").rename(root / "x")
    (root / "cow").rename(root / "ant")
    (root / "x").rename(root / "cow")


def replace_folder(root):
    """Another folder of the same name with other files, and the times of the former, as far as one can set them."""
    times = (root / "ant").stat()
    shutil.rmtree(root / "ant")
    (root / "ant").mkdir()
    shutil.copy(root / "cow" / "0.png", root / "ant" / "new.png")
    os.utime(root / "ant", ns=(times.st_atime_ns, times.st_mtime_ns))


def restore_time(root):
    """A new file in a folder whose modification time is put back, as rsync and tar do."""
    times = (root / "ant").stat()
    shutil.copy(root / "cow" / "0.png", root / "ant" / "new.png")
    os.utime(root / "ant", ns=(times.st_atime_ns, times.st_mtime_ns))


CHANGES = {
    "added": (lambda root: shutil.copy(root / "ant" / "0.png", root / "ant" / "9.png"), ["ant"]),
    "added below": (lambda root: shutil.copy(root / "ant" / "0.png", root / "bee" / "deep" / "9.png"), ["deep"]),
    "removed": (lambda root: (root / "ant" / "1.png").unlink(), ["ant"]),
    "renamed": (lambda root: (root / "ant" / "1.png").rename(root / "ant" / "7.png"), ["ant"]),
    "moved": (lambda root: (root / "ant" / "1.png").rename(root / "cow" / "7.png"), ["ant", "cow"]),
    "another ending": (lambda root: (root / "ant" / "1.png").rename(root / "ant" / "1.txt"), ["ant"]),
    "hidden": (lambda root: (root / "ant" / "1.png").rename(root / "ant" / ".1.png"), ["ant"]),
    "class renamed": (lambda root: (root / "ant").rename(root / "dog"), ["dog"]),
    "class removed": (lambda root: shutil.rmtree(root / "cow"), []),
    "classes swapped": (swap, ["ant", "cow"]),
    "folder replaced": (replace_folder, ["ant"]),
    "time put back": (restore_time, ["ant"]),
    "folder below removed": (lambda root: shutil.rmtree(root / "bee" / "deep"), ["bee"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_shows(name, root, tmp_path, listed):
    change, expected = CHANGES[name]
    before = lists(root, tmp_path / "cache")
    change(root)
    listed.clear()
    after = lists(root, tmp_path / "cache")
    assert sorted(listed) == expected
    assert after == lists(root, None) != before
    listed.clear()
    assert lists(root, tmp_path / "cache") == after and listed == []


def test_folders_that_have_just_changed_are_not_trusted(root, tmp_path, listed, monkeypatch):
    monkeypatch.setattr(list_cache, "MIN_AGE", 60 * 10**9)
    expected = lists(root, tmp_path / "cache")
    assert lists(root, tmp_path / "cache") == expected and len(listed) == 8
    now = list_cache.time.time_ns()
    monkeypatch.setattr(list_cache.time, "time_ns", lambda: now + 61 * 10**9)
    for _ in range(2):
        assert lists(root, tmp_path / "cache") == expected
    assert len(listed) == 12


def flip_byte(content):
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


@pytest.mark.parametrize(
    "damage",
    [flip_byte, lambda content: content[:-9], lambda content: b"", lambda content: gzip.compress(b"[1, 2]")],
)
def test_a_damaged_cache_is_written_again_with_one_line(damage, root, tmp_path, listed, capsys):
    expected = lists(root, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert lists(root, tmp_path / "cache") == expected and len(listed) == 8
    assert capsys.readouterr().err == f"warning: {file}: is damaged, the folders are listed anew\n"
    assert json.loads(gzip.decompress(file.read_bytes())) == json.loads(gzip.decompress(whole))
    assert lists(root, tmp_path / "cache") == expected and len(listed) == 8


def test_a_cache_of_another_version_is_not_used(root, tmp_path, listed, monkeypatch, capsys):
    lists(root, tmp_path / "cache")
    monkeypatch.setattr(list_cache, "VERSION", [2])
    lists(root, tmp_path / "cache")
    assert len(listed) == 8 and capsys.readouterr().err == ""


def test_names_that_are_no_text_and_two_datasets(root, tmp_path):
    shutil.copytree(root, tmp_path / "other")
    shutil.copy(root / "ant" / "0.png", os.fsencode(root / "ant") + b"/\xff.png")
    for _ in range(2):
        for folder in (root, tmp_path / "other"):
            assert lists(folder, tmp_path / "cache") == lists(folder, None)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_several_processes_at_once(root, tmp_path):
    code = (
        "import sys; from src.data import list_cache; list_cache.MIN_AGE = 0\n"
        "from src.classification.dataset import list_class_folders\n"
        "from pathlib import Path\n"
        "for _ in range(20):\n"
        "    print(len(list_class_folders(Path(sys.argv[1]), (), sys.argv[2])[1]))\n"
        "    (Path(sys.argv[1]) / 'ant' / (sys.argv[3] + '.txt')).touch()\n"
    )
    command = [sys.executable, "-c", code, str(root), str(tmp_path / "cache")]
    runs = [
        subprocess.Popen([*command, name], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    for run in runs:
        output, errors = run.communicate()
        assert (output, errors) == ("9\n" * 20, "")
    assert lists(root, tmp_path / "cache") == lists(root, None)


def test_the_setting_reaches_both_kinds_of_folders(root, tmp_path, listed):
    (root.parent / "val").mkdir()
    for number in range(2):
        shutil.copy(root / "cow" / "0.png", root.parent / "val" / f"{number}.png")
    (tmp_path / "labels.txt").write_text("ant\ncow\n")
    settings = {
        "path": str(root.parent),
        "val_labels": str(tmp_path / "labels.txt"),
        "class_names": ["ant", "bee", "cow"],
    }
    settings["list_cache"] = str(tmp_path / "cache")
    overrides = [(f"data.{key}", value, "test") for key, value in settings.items()]
    overrides += [("network.num_classes", 3, "test"), ("train.batch_size", 2, "test")]
    task = create_task(load_config(PROJECT / "configs" / "classification" / "digits.yaml", SCHEMAS, overrides))
    for _ in range(2):
        assert [len(task.build_dataset(split, Ranks()).records) for split in ("train", "val")] == [9, 2]
    assert sorted(listed) == ["ant", "bee", "cow", "deep", "val"]


def test_a_cache_that_is_a_file_is_named(root, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match=f"^{tmp_path}/cache: is a file, where a folder is needed"):
        lists(root, tmp_path / "cache")
