"""Archives of datasets as they are downloaded, tar and zip: their files, listed and checked.

Archives are not trusted: names that lead elsewhere, links, and sizes that no dataset has are refused.
"""

import os
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Callable

from src.data.images import IMAGE_SUFFIXES
from src.errors import UserError
from src.files import refuse_other_than_file

CHUNK = 2**20  # bytes read at a time
BLOCK = 512  # bytes of a tar's blocks: one of zeros is its end
MAX_FILE = 2**30  # bytes of one file; the largest of these datasets, COCO's annotations, has about 450 MB
MAX_RATIO = 100  # of a zip's content to its size; annotations in JSON have about 5
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, OverflowError, NotImplementedError)


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        archive: the archive's path; of a tar in a tar, that of the outer one and its name there.
        name: in the archive, such as `train2017/000000000009.jpg`, without `./` in front.
        size: bytes.
        read: () -> iterator of its content in pieces; raises what `DAMAGE` lists.
        start: of the content in a tar, bytes; None in a zip, where it is packed.
    """

    archive: str
    name: str
    size: int
    read: Callable
    start: int = None

    def chunks(self):
        """Give the content in pieces.

        Raises:
            UserError: naming the archive and the file, if it is damaged.
        """
        try:
            yield from self.read()
        except DAMAGE as error:
            raise self.error(f"is damaged: {_reason(error)}") from None
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror}") from None

    def error(self, reason) -> UserError:
        """Put in words what is wrong with the file."""
        return UserError(f"{self.archive}: {self.name}: {reason}")


def list_tar(path, inside=None) -> list:
    """List the files of an uncompressed tar, or of the tar that is its member `inside`, as `Member`s.

    Raises:
        UserError: naming the archive, and the file in it, if it is damaged, cut off or not to be trusted.
    """
    path = Path(path)
    refuse_other_than_file(path, "an archive is")
    name = str(path) if inside is None else f"{path}: {inside.name}"
    members = []
    try:
        with open(path, "rb") as file:
            end = os.fstat(file.fileno()).st_size if inside is None else inside.start + inside.size
            file.seek(0 if inside is None else inside.start)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for entry in tar:  # read header by header: the first bad one ends the list
                    members.append(_tar_member(path, name, entry, end))
                file.seek(tar.offset)
                # tarfile takes a file that ends between two members, or goes on with anything else, for a whole one
                if tar.offset + BLOCK > end or file.read(BLOCK) != bytes(BLOCK):
                    behind = f" behind {members[-1].name}" if members and members[-1] else ""
                    raise UserError(f"{name}: is damaged or cut off{behind}")
    except DAMAGE as error:
        raise UserError(f"{name}: is not a whole tar file: {_reason(error)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return [member for member in members if member is not None]


def _tar_member(path, archive, entry, end):
    """Check an entry of a tar that ends at byte `end`; None for folders and hidden files."""
    name = _check_name(archive, entry.name)
    if entry.isdir():
        return None
    if not entry.isfile() or entry.issparse():
        raise UserError(f"{archive}: {name}: is a link or a device, which no dataset has")
    if not 0 <= entry.size <= end - entry.offset_data:
        raise UserError(f"{archive}: {name}: is cut off")
    read = partial(_read_part, path, entry.offset_data, entry.size)
    return None if _is_hidden(name) else Member(archive, name, entry.size, read, entry.offset_data)


def _read_part(path, start, size):
    with open(path, "rb") as file:
        file.seek(start)
        while size > 0:
            chunk = file.read(min(size, CHUNK))
            if not chunk:
                raise EOFError("the archive is cut off")
            size -= len(chunk)
            yield chunk


def list_zip(path) -> list:
    """List the files of a zip as `Member`s, which several threads may read.

    Raises:
        UserError: naming the archive, and the file in it, if it is damaged or not to be trusted.
    """
    path = Path(path)
    refuse_other_than_file(path, "an archive is")
    try:
        archive = zipfile.ZipFile(path)  # open as long as one of the members
        infos = archive.infolist()
        packed = path.stat().st_size
    except DAMAGE as error:
        raise UserError(f"{path}: is not a whole zip file: {_reason(error)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    members = []
    for info in infos:
        name = _check_name(path, info.filename)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(f"{path}: {name}: is a link or a device, which no dataset has")
        if info.flag_bits & 1:
            raise UserError(f"{path}: {name}: is encrypted")
        if not info.is_dir() and not _is_hidden(name):
            members.append(Member(str(path), name, info.file_size, partial(_read_packed, archive, info)))
    total = sum(info.file_size for info in infos)
    if total > MAX_RATIO * packed:
        raise UserError(f"{path}: unpacks {packed:,} bytes to {total:,}, which no dataset does")
    return members


def _read_packed(archive, info):
    with archive.open(info) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _check_name(archive, name) -> str:
    """Give the name without `./` in front.

    Raises:
        UserError: if it leads out of the folder that the archive is unpacked to.
    """
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise UserError(f"{archive}: {name}: leads out of the archive's folder, nothing of it is unpacked")
    return str(PurePosixPath(name))


def _is_hidden(name) -> bool:
    """Whether a file is one of those that systems add to archives."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _reason(error) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def select(members, folder, suffixes=IMAGE_SUFFIXES) -> dict:
    """Choose the files of a folder in an archive, those below it left out: {file name: Member}.

    Args:
        members: of one archive.
        folder: in the archive, such as 'ADEChallengeData2016/images/training'; '.' for its top.
        suffixes: endings of the files, in lower case.

    Raises:
        UserError: if two have the same name, or one more bytes than any file of a dataset.
    """
    chosen = {}
    for member in members:
        name = PurePosixPath(member.name)
        if str(name.parent) != folder or not name.name.lower().endswith(suffixes):
            continue
        if name.name in chosen:
            raise member.error("is there twice")
        if member.size > MAX_FILE:
            raise member.error(f"has {member.size:,} bytes, at most {MAX_FILE:,} are allowed")
        chosen[name.name] = member
    return chosen
