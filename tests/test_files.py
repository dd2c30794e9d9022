"""Files that cannot be written: a full disk, a device, a folder that is a file."""

import contextlib
import resource
import subprocess
import sys

import numpy as np
import pytest
from helpers import PROJECT, command

from src.errors import UserError
from src.files import atomic_path, refuse_existing, write_text


@contextlib.contextmanager
def full_disk():
    """Let no file grow beyond some bytes, which Python reports as it does a full disk.

    Only around what is tested: the limit holds for the whole process, pytest's own output into a file included.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_pytorch_weights_on_a_full_disk(tmp_path, capfd):
    pytest.importorskip("torch")
    from scripts.port_weights import write_pytorch

    with pytest.raises(UserError, match="a.pth: cannot be written: File too large"), full_disk():
        write_pytorch({"weight": np.ones(10_000, np.float32)}, tmp_path / "a.pth")
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")


def test_demo_data_on_a_full_disk(tmp_path, monkeypatch, capsys):
    from scripts import make_demo_data

    monkeypatch.setattr(sys, "argv", ["make_demo_data.py", str(tmp_path / "digits"), "--task", "detection"])
    with pytest.raises(UserError, match="digits: cannot be written: File too large"), full_disk():
        make_demo_data.main()
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr() == ("", "")


def test_demo_data_without_permission(tmp_path, monkeypatch):
    from scripts import make_demo_data

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setitem(make_demo_data.WRITERS, "classification", refuse)
    monkeypatch.setattr(sys, "argv", ["make_demo_data.py", str(tmp_path / "digits")])
    with pytest.raises(UserError, match="digits: cannot be written: Permission denied"):
        make_demo_data.main()
    assert list(tmp_path.iterdir()) == []


def test_a_full_standard_output_is_named(tmp_path):
    arguments = [*command("scripts/make_demo_data.py", "digits"), "--task", "segmentation"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(arguments, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "error: standard output: cannot be written: No space left on device\n"


def test_a_long_output_into_a_full_device_is_named(tmp_path):
    """The buffer is full long before the end."""
    code = f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n"
    code += "from src.console import run\nrun(lambda: [print('x' * 1000) for _ in range(100)])"
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr


def test_what_is_no_file_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "folder", "is a folder, no file that could be replaced"),
        ("/dev/null", "/dev/null: is a device, no file that could be replaced"),
        (tmp_path / "file" / "a.txt", "file: is a file, where a folder is needed"),
    ):
        with pytest.raises(UserError, match=message), atomic_path(path):
            pytest.fail("begun")
    with pytest.raises(UserError, match="File name too long"):
        write_text(tmp_path / ("x" * 300), "new")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_place_for_no_file_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    refuse_existing(tmp_path / "new" / "folder" / "a.txt", False)
    refuse_existing("a.txt", False)
    with pytest.raises(UserError, match=r"file: exists; --force overwrites it"):
        refuse_existing(tmp_path / "file", False)
    refuse_existing(tmp_path / "file", True)
    with pytest.raises(UserError, match="file: is a file, where a folder is needed"):
        refuse_existing(tmp_path / "file" / "folder" / "a.txt", True)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UserError, match=r"a.txt: cannot be written: .* is read-only"):
        refuse_existing(tmp_path / "new" / "a.txt", False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
