"""Files that are whole at any moment: each is written under a temporary name and renamed."""

import csv
import glob
import io
import os
from contextlib import contextmanager
from pathlib import Path

from src.errors import UserError

TEMPORARY = ".tmp"  # in the names of files that are being written
_open_stems = set()  # beginnings of the paths of these, in this process


@contextmanager
def atomic_path(path, suffix=None):
    """Give a path to write to in place of `path`; it is renamed when the block succeeds, removed when it fails.

    Args:
        path: the file to be written; its folder is made where missing.
        suffix: file ending that the writer insists on; that of `path` if None.

    Raises:
        UserError: if the folder cannot be made or the file not be written; a file that was there stays as it was.
    """
    path = Path(path)
    if os.path.exists(path) and not os.path.isfile(path):  # unlike pathlib's, these never raise
        raise UserError(f"{path}: is {'a folder' if path.is_dir() else 'a device'}, no file that could be replaced")
    make_folder(path.parent)
    stem = path.parent / f".{path.name}.{os.getpid()}{TEMPORARY}"
    temporary = stem.with_name(stem.name + (path.suffix if suffix is None else suffix))
    _open_stems.add(stem)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        _remove_leftovers(stem)
        _open_stems.discard(stem)


def remove_temporaries() -> None:
    """Remove all files that are being written, before a process ends in the middle."""
    for stem in list(_open_stems):
        _remove_leftovers(stem)


def _remove_leftovers(stem):
    for leftover in stem.parent.glob(f"{glob.escape(stem.name)}*"):  # MindSpore writes to a file of its own beside it
        leftover.unlink(missing_ok=True)


def make_folder(path) -> None:
    """Make a folder, and those above it, where it is missing.

    Raises:
        UserError: if that is not possible.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{path}: is a file, where a folder is needed") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be made: {error.strerror}") from None


def unwritable(path, error) -> UserError:
    """Put the error of writing `path` in words; the full disk is the one that people meet."""
    path = Path(path)
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    kept = "; the one from before is whole" if os.path.exists(path) else ""
    return UserError(f"{path}: cannot be written: {reason}{kept}")


def _flush_folder(path):
    """Make a rename last through a power cut, where the system lets a folder be flushed."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(folder)
    except OSError:
        pass
    finally:
        os.close(folder)


def refuse_other_than_file(path, needed: str) -> None:
    """Raise `UserError` if `path` is there and no file, such as a pipe: to read that might never end.

    Args:
        needed: what the file is to be, such as 'an image is'.
    """
    if not os.path.isfile(path) and os.path.exists(path):
        raise UserError(f"{path}: is {'a folder' if os.path.isdir(path) else 'no file'}, {needed} needed")


def refuse_existing(path, force: bool) -> None:
    """Raise `UserError` if the file `path` exists, unless `force` is set, or if no file can be written there."""
    if os.path.exists(path) and not force:
        raise UserError(f"{path}: exists; --force overwrites it")
    folder = Path(path).parent
    while not os.path.exists(folder) and folder != folder.parent:  # it is made when the file is
        folder = folder.parent
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: is a file, where a folder is needed")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{path}: cannot be written: {folder} is read-only")


def write_text(path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path, rows) -> None:
    """Write a table, its header the first row, atomically."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
