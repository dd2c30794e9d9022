"""Unpacking of datasets, so that a run that was stopped goes on, and what the scripts that do it share.

A folder is filled under a hidden name beside it, file by file, and renamed when it is complete. So a folder that has
its own name is whole, or the user's, and is left as it is; a run that was killed goes on in the hidden one.
"""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable

from PIL import Image
from tqdm import tqdm

from src.data.images import IMAGE_SUFFIXES
from src.errors import UserError
from src.files import TEMPORARY, make_folder, unwritable

SPACE = 1.03  # of the disk to the files' bytes: the last block of a file is not full
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
MAX_JOBS = 256
DEFAULT_JOBS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Folder:
    """A folder to be filled from an archive.

    Attributes:
        path: of the folder.
        size: bytes of its files, or a little more.
        list_members: () -> {file name: Member}.
    """

    path: Path
    size: int
    list_members: Callable

    @property
    def unfinished(self) -> Path:
        """The folder while it is incomplete; hidden ones are in no list of images."""
        return self.path.with_name(f".{self.path.name}{TEMPORARY}")

    def missing(self) -> int:
        """Count the bytes that are still to be written."""
        return max(0, self.size - sum(_sizes(self.unfinished).values()))


def list_folder(path, members) -> Folder:
    """Describe a folder by the {file name: Member} that are to fill it."""
    return Folder(path, sum(member.size for member in members.values()), partial(dict, members))


def unpack(output, folders, jobs) -> None:
    """Fill all `Folder`s that are not there yet, with `jobs` threads.

    Raises:
        UserError: if the disk has too little space, an archive is damaged, or a file cannot be written; the same call
            goes on where it was.
    """
    todo = [folder for folder in folders if not os.path.lexists(folder.path)]
    if len(todo) < len(folders):
        print(f"{output}: {len(folders) - len(todo)} of {len(folders)} folders are there already")
    if not todo:
        return
    missing = sum(folder.missing() for folder in todo)
    _check_space(output, missing)
    with tqdm(total=missing, desc="unpack", unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for folder in todo:
            _fill(folder, jobs, bar)
    print(f"{output}: {len(todo)} folders filled")


def _check_space(output, size):
    """Raise `UserError` unless the disk has space for files of `size` bytes."""
    place = Path(output).absolute()
    while not place.exists():
        place = place.parent
    needed, free = size * SPACE, shutil.disk_usage(place).free
    if needed > free:
        raise UserError(f"{output}: needs {needed / 1e9:.1f} GB of space, {free / 1e9:.1f} GB are free")


def _fill(folder, jobs, bar):
    """Write the files of a `Folder` that are not there yet, and give it its name."""
    members, unfinished = folder.list_members(), folder.unfinished
    make_folder(unfinished)
    there = _sizes(unfinished)
    missing = [(name, member) for name, member in members.items() if there.get(name) != member.size]
    for size in in_parallel(partial(_write, folder), missing, jobs):
        bar.update(size)
    try:
        for name in there.keys() - members.keys():  # of a process that was killed
            (unfinished / name).unlink(missing_ok=True)
        if hasattr(os, "sync"):  # so that after a power cut, too, a folder with its own name is whole
            os.sync()
        unfinished.rename(folder.path)
    except OSError as error:
        raise unwritable(folder.path, error) from None


def _sizes(path) -> dict:
    """Give {name: bytes} of the files in a folder, which may be missing."""
    return {entry.name: entry.stat().st_size for entry in os.scandir(path)} if path.is_dir() else {}


def _write(folder, item) -> int:
    """Write a file under a temporary name, check it if it is an image, and rename it; returns its bytes."""
    name, member = item
    path = folder.unfinished / name
    temporary = path.with_name(f"{name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            for chunk in member.chunks():
                file.write(chunk)
        if name.lower().endswith(IMAGE_SUFFIXES):
            _check_image(temporary, member)
        os.replace(temporary, path)
    except OSError as error:
        later = "; once there is space, the same command goes on" if error.errno in NO_SPACE else ""
        raise UserError(f"{unwritable(path, error)}{later}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return member.size


def _check_image(path, member):
    """Raise `UserError` if a file is no image by its first bytes."""
    try:
        with Image.open(path):
            pass
    except Exception:  # Pillow raises almost anything on broken files
        raise member.error("is not an image") from None


def in_parallel(function, items, jobs):
    """Call a function of each item in `jobs` threads; yields the results in order and stops at the first error."""
    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def check_each(function, items, jobs, description) -> None:
    """Call a function of each item in `jobs` threads.

    Args:
        function: raises `UserError` for a bad item.
        items: a list.
        jobs: number of threads.
        description: of the progress bar.

    Raises:
        UserError: the first of these errors, and how many there were.
    """

    def attempt(item):
        try:
            function(item)
        except UserError as error:
            return str(error)
        return None

    results = in_parallel(attempt, items, jobs)
    progress = {"total": len(items), "desc": description, "leave": False, "disable": None}
    errors = [message for message in tqdm(results, **progress) if message]
    if errors:
        more = f"; {len(errors) - 1} more of {len(items)} are bad, too" if len(errors) > 1 else ""
        raise UserError(errors[0] + more)


def check_count(place, found, published, what, is_part) -> None:
    """Raise `UserError` unless as many were found in a place as are published, or it is a part of the dataset."""
    if found != published and not is_part:
        raise UserError(f"{place}: has {found:,} {what}, published are {published:,}; --partial takes a part, too")


def add_arguments(parser) -> None:
    """Add the arguments that all these scripts have to a parser."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the dataset")
    parser.add_argument("--check", action="store_true", help="unpack nothing, check what is in DIR")
    parser.add_argument("--partial", action="store_true", help="take a part of the dataset: counts are not checked")
    parser.add_argument("--jobs", type=int, default=DEFAULT_JOBS, metavar="N", help="threads that write and check")


def check_arguments(arguments, archives, needed) -> None:
    """Check the arguments of `add_arguments` and the flags of archives.

    Args:
        arguments: parsed.
        archives: names of the flags of archives of which one is enough.
        needed: names of the flags that these need.

    Raises:
        UserError: naming the flag.
    """
    given = [name for name in (*archives, *needed) if getattr(arguments, name) is not None]
    flags = " or ".join(f"--{name}" for name in archives)
    if not 1 <= arguments.jobs <= MAX_JOBS:
        raise UserError(f"--jobs {arguments.jobs} is out of range: at least 1 and at most {MAX_JOBS}")
    if arguments.check and given:
        raise UserError(f"--{given[0]}: --check unpacks nothing")
    if arguments.check:
        return
    if not set(archives) & set(given):
        raise UserError(f"{flags} is needed, or --check for a folder that is there")
    for name in needed:
        if name not in given:
            raise UserError(f"--{name} is needed, too")


def splits_to_check(arguments, folders) -> list:
    """Choose the splits to check: those unpacked now; with `--check` all, with `--partial` those that are there.

    Args:
        arguments: parsed.
        folders: {split: its folder}.
    """
    if not arguments.check:
        return [split for split in folders if getattr(arguments, split)]
    there = [split for split, folder in folders.items() if folder.is_dir()]
    return there if there and arguments.partial else list(folders)
