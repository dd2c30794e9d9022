"""PyTorch's pickled checkpoints without PyTorch, and without running them.

A pickle is a program. Here its opcodes may call nothing but the few constructors below, which build arrays
and plain containers; any other name ends the reading. Both layouts are read: the zip archive of PyTorch
1.6 and newer, and the older sequence of pickles.
"""

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": "bfloat16",
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# harmless, of no use here, and found in published files: settings, metrics, devices
IGNORED = {
    ("argparse", "Namespace"),
    ("torch", "device"),
    ("torch", "Size"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
}


class UnreadableFileError(Exception):
    """The file is damaged, or no PyTorch checkpoint."""


class UnsafePickleError(UnreadableFileError):
    """The pickle wants to call something that builds no weights."""


class _StorageType:
    """Stands for a class such as `torch.FloatStorage`."""

    def __init__(self, name):
        self.dtype = DTYPES[name]

    @property
    def item_size(self):
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    def decode(self, data):
        """Decode a flat array from little-endian bytes; bfloat16 becomes float32."""
        if self.dtype == "bfloat16":
            return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(data, np.dtype(self.dtype).newbyteorder("<")).astype(self.dtype, copy=False)


class _Lazy:
    """A storage whose bytes come behind the pickle, and views of it that wait for them (older layout)."""

    def __init__(self, storage_type):
        self.storage_type = storage_type
        self.array = None


class _View:
    """A tensor: part of a storage, cut out by `materialise`."""

    def __init__(self, storage, offset, size, stride):
        self.storage, self.offset = storage, offset
        self.size, self.stride = tuple(size), tuple(stride)

    def materialise(self):
        flat = self.storage.array
        numbers = (self.offset, *self.size, *self.stride)
        if flat is None or any(not isinstance(n, int) or n < 0 for n in numbers) or len(self.size) != len(self.stride):
            raise UnreadableFileError("a tensor has no data")
        if 0 in self.size:
            return np.zeros(self.size, flat.dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride))
        if last >= len(flat):
            raise UnreadableFileError("a tensor reaches beyond its data")
        strides = [step * flat.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.size, strides, writeable=False).copy()


def _allowed_calls():
    """Give {(module, name): stand-in}, made anew for each file, so that no file can change another's."""

    class Ignored:
        def __init__(self, *arguments, **keywords):
            pass

        def __setstate__(self, state):
            pass

    def rebuild_tensor(storage, offset, size, stride, *unused):
        return _View(storage, offset, size, stride)

    def rebuild_parameter(data, *unused):
        return data

    calls = dict.fromkeys(IGNORED, Ignored)
    calls["collections", "OrderedDict"] = OrderedDict
    calls["torch._utils", "_rebuild_tensor"] = rebuild_tensor
    calls["torch._utils", "_rebuild_tensor_v2"] = rebuild_tensor
    calls["torch._utils", "_rebuild_parameter"] = rebuild_parameter
    for name in DTYPES:
        calls["torch", name] = _StorageType(name)
    return calls


class _Unpickler(pickle.Unpickler):
    """Unpickler that knows `_allowed_calls` only; `load_storage` resolves a persistent identifier."""

    def __init__(self, file, load_storage):
        super().__init__(file, encoding="utf-8")
        self.calls = _allowed_calls()
        self.load_storage = load_storage

    def find_class(self, module, name):
        if (module, name) not in self.calls:
            raise UnsafePickleError(f"it would call {module}.{name}, which builds no weights; nothing of it was run")
        return self.calls[module, name]

    def persistent_load(self, identifier):
        if not (isinstance(identifier, tuple) and len(identifier) >= 5 and identifier[0] == "storage"):
            raise UnreadableFileError("unknown kind of storage")
        if not isinstance(identifier[1], _StorageType):
            raise UnreadableFileError("unknown kind of storage")
        return self.load_storage(*identifier[1:5])


def read_torch_file(path):
    """Read the object that `torch.save` wrote to `path`, its tensors as arrays.

    Raises:
        UnsafePickleError: if it would call anything but constructors of tensors and plain containers.
        UnreadableFileError: if it is damaged or something else.
    """
    try:
        with open(path, "rb") as file:
            is_zip = file.read(2) == b"PK"
            file.seek(0)
            content = _read_zip(path) if is_zip else _read_legacy(file)
        return _materialise(content)
    except UnreadableFileError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise UnreadableFileError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from None


def _read_zip(path):
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UnreadableFileError("the archive holds no data.pkl")
        folder = pickles[0][: -len("data.pkl")]
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise UnreadableFileError("written on a big-endian machine")
        storages = {}

        def load_storage(storage_type, key, location, count):
            if key not in storages:
                storages[key] = _Lazy(storage_type)
                storages[key].array = storage_type.decode(archive.read(f"{folder}data/{key}"))
            return storages[key]

        return _Unpickler(io.BytesIO(archive.read(pickles[0])), load_storage).load()


def _read_legacy(file):
    def plain():
        return _Unpickler(file, lambda *identifier: None).load()

    if plain() != LEGACY_MAGIC:
        raise UnreadableFileError("a pickle, but none that torch.save wrote")
    plain()  # protocol
    if not plain().get("little_endian", True):
        raise UnreadableFileError("written on a big-endian machine")
    storages = {}

    def load_storage(storage_type, key, location, count):
        return storages.setdefault(key, _Lazy(storage_type))

    content = _Unpickler(file, load_storage).load()
    for key in plain():
        storage = storages[key]
        size = int.from_bytes(file.read(8), "little") * storage.storage_type.item_size
        data = file.read(size)
        if len(data) < size:
            raise UnreadableFileError("it is cut off")
        storage.array = storage.storage_type.decode(data)
    return content


def _materialise(value):
    """Put arrays in place of views in `value`, through dicts, lists and tuples."""
    if isinstance(value, _View):
        return value.materialise()
    if isinstance(value, dict):
        return {key: _materialise(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_materialise(item) for item in value]
    return value
