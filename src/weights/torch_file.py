"""PyTorch's checkpoints without PyTorch: where a file keeps its data, and which of its parts are weights.

Three layouts are read: the zip archive of PyTorch 1.6 and newer, the older sequence of pickles, and a plain pickle of
NumPy arrays.
"""

import io
import os
import zipfile
from dataclasses import dataclass

from src.weights.unpickler import ArrayData, Storage, Unpickler, UnreadableFileError, View

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_INFLATION = 10  # bytes of an archive's entries for one of the file; torch.save does not compress

# where training scripts keep weights: averaged ones, plain ones; and what either may be wrapped in
AVERAGED = ("state_dict_ema", "model_ema", "ema", "ema_state_dict")
PLAIN = ("state_dict", "model", "model_state_dict", "net", "module")
MAX_DEPTH = 3  # of sections in sections
COUNTERS = ("n_averaged", "steps")  # of updates, beside the averaged weights of PyTorch and of MMEngine


@dataclass(frozen=True)
class Section:
    """The part of a file that is its weights.

    Attributes:
        name: such as 'state_dict_ema', or 'ema.module' for one in another; "" for the whole file.
        is_averaged: whether its name says that it is a moving average.
        arrays: {name: array}.
    """

    name: str
    is_averaged: bool
    arrays: dict


def read_torch_file(path) -> list:
    """Read the weights that `torch.save` wrote to `path`.

    Returns:
        Every `Section` in it, the most likely of averaged and of plain ones first. Some may hold no arrays.

    Raises:
        UnsafePickleError: if it would call anything but constructors of tensors and plain containers.
        UnreadableFileError: if it is damaged or something else.
    """
    try:
        with open(path, "rb") as file:
            is_zip = file.read(2) == b"PK"
            file.seek(0)
            content = _read_zip(file) if is_zip else _read_legacy(file)
        return list(find_sections(content))
    except UnreadableFileError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise UnreadableFileError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from None


def find_sections(content, names=()):
    """Yield a `Section` for each dict of a file that may be its weights, inner ones before outer ones."""
    if not isinstance(content, dict):
        return
    for name in AVERAGED + PLAIN if len(names) < MAX_DEPTH else ():
        yield from find_sections(content.get(name), (*names, name))
    yield Section(".".join(names), any(name in AVERAGED for name in names), read_arrays(content))


def read_arrays(content) -> dict:
    """Read the tensors of a dict, or if it has none its NumPy arrays; {} if all are mere numbers, such as a decay."""
    entries = {name: value for name, value in content.items() if isinstance(name, str) and name not in COUNTERS}
    tensors = {name: value for name, value in entries.items() if isinstance(value, View)}
    arrays = {name: value for name, value in entries.items() if isinstance(value, ArrayData) and value.is_numeric}
    for found in (tensors, arrays):
        if any(len(value.shape) > 0 for value in found.values()):
            return {name: value.read() for name, value in found.items()}
    return {}


def _read_zip(file):
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UnreadableFileError("the archive holds no data.pkl")
        folder = pickles[0][: -len("data.pkl")]
        if f"{folder}constants.pkl" in names:
            raise UnreadableFileError("it is a TorchScript program; save its state_dict() instead")
        size, limit = sum(entry.file_size for entry in archive.infolist()), os.fstat(file.fileno()).st_size
        if size > MAX_INFLATION * limit:
            raise UnreadableFileError(f"its {limit} bytes unpack to {size}, which is refused")
        if f"{folder}byteorder" in names and _read_entry(archive, f"{folder}byteorder") != b"little":
            raise UnreadableFileError("written on a big-endian machine")
        storages = {}

        def load_storage(storage_type, key, location, count):
            if key not in storages:
                storages[key] = Storage(storage_type)
                storages[key].array = storage_type.decode(_read_entry(archive, f"{folder}data/{key}"))
            return storages[key]

        return Unpickler(io.BytesIO(_read_entry(archive, pickles[0])), load_storage).load()


def _read_entry(archive, name) -> bytes:
    """Read an entry, and no more of it than the archive's list says."""
    with archive.open(name) as entry:
        return entry.read(archive.getinfo(name).file_size)


def _read_legacy(file):
    def plain():
        return Unpickler(file, lambda *identifier: None).load()

    first = plain()
    if isinstance(first, dict):  # of NumPy arrays
        return first
    if first != LEGACY_MAGIC:
        raise UnreadableFileError("a pickle, but none that torch.save wrote")
    plain()  # protocol
    if not plain().get("little_endian", True):
        raise UnreadableFileError("written on a big-endian machine")
    storages = {}

    def load_storage(storage_type, key, location, count):
        return storages.setdefault(key, Storage(storage_type))

    content = Unpickler(file, load_storage).load()
    end = os.fstat(file.fileno()).st_size
    for key in plain():
        storage = storages[key]
        size = int.from_bytes(file.read(8), "little") * storage.storage_type.item_size
        if size > end - file.tell():
            raise UnreadableFileError("it is cut off")
        storage.array = storage.storage_type.decode(file.read(size))
    return content
