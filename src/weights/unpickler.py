"""Pickles of PyTorch and NumPy, read without either's code and without running them.

A pickle is a program. Here its opcodes may call nothing but the stand-ins below, which build plain containers and
descriptions of arrays; any other name ends the reading.
"""

import pickle
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}
BUILTINS = "Ellipsis bool bytearray complex dict float frozenset int list long range set slice str tuple unicode xrange"
NUMPY_TYPES = "bool_ float16 float32 float64 int16 int32 int64 int8 ndarray uint16 uint32 uint64 uint8"
PATHS = "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath"
TORCH_TYPES = (
    "bfloat16 bool complex128 complex32 complex64 double float float16 float32 float64 float8_e4m3fn float8_e5m2 half "
    "int int16 int32 int64 int8 long short uint16 uint32 uint64 uint8"
)
# harmless, of no use here, and found in published files: settings, metrics, devices, random states
IGNORED = {
    "argparse": "Namespace",
    "builtins": BUILTINS,
    "__builtin__": BUILTINS,  # what Python 2, and protocol 2, call them
    "collections": "Counter",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "numpy": NUMPY_TYPES,
    "numpy.core.multiarray": "scalar",
    "numpy._core.multiarray": "scalar",
    "pathlib": PATHS,
    "pathlib._local": PATHS,  # of Python 3.13
    "torch": f"{TORCH_TYPES} Size Tensor device",
    "torch.nn.parameter": "Parameter",
    "torch.serialization": "_get_layout",
    "torch.torch_version": "TorchVersion",
    "types": "SimpleNamespace",
    "uuid": "UUID",
}


class UnreadableFileError(Exception):
    """The file is damaged, or no PyTorch checkpoint."""


class UnsafePickleError(UnreadableFileError):
    """The pickle wants to call something that builds no weights."""


class Dictionary(dict):
    """Stands for OrderedDict and defaultdict, whose attributes are left out."""

    def __setstate__(self, state):
        pass


class StorageType:
    """Stands for a class such as `torch.FloatStorage`."""

    def __init__(self, name):
        self.dtype = DTYPES[name]

    @property
    def item_size(self):
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    def decode(self, data):
        """Decode a flat array from little-endian bytes; bfloat16 becomes float32."""
        if self.dtype == "bfloat16":
            return widen_bfloat16(data)
        return np.frombuffer(data, np.dtype(self.dtype).newbyteorder("<")).astype(self.dtype, copy=False)


class Storage:
    """The data of one tensor or several, which come in another place than the pickle."""

    def __init__(self, storage_type):
        self.storage_type = storage_type
        self.array = None


@dataclass
class View:
    """A tensor: part of a storage."""

    storage: Storage
    offset: int
    size: Any
    stride: Any

    @property
    def shape(self):
        return self.size

    def read(self):
        """Give the array, read-only: a view, so that a tensor repeated by a stride of 0 takes no memory."""
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
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.size, strides, writeable=False)


class ArrayType:
    """Stands for a `numpy.dtype`."""

    def __init__(self, code, *unused):
        self.code, self.byte_order = code, "|"

    def __setstate__(self, state):
        self.byte_order = state[1]


class ArrayData:
    """A NumPy array."""

    def __init__(self, data=b"", array_type=None, shape=(), order="C"):
        self.data, self.array_type, self.shape, self.order = data, array_type, shape, order

    def __setstate__(self, state):
        _, self.shape, self.array_type, is_fortran, self.data = state
        self.order = "F" if is_fortran else "C"

    @property
    def is_numeric(self):
        """Whether it holds numbers, not text or objects."""
        return re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16", self.array_type.code) is not None

    def read(self):
        """Give the array, read-only."""
        dtype = np.dtype(self.array_type.code).newbyteorder(self.array_type.byte_order)
        return np.frombuffer(self.data, dtype).reshape(self.shape, order=self.order).astype(dtype.newbyteorder("="))


def widen_bfloat16(data):
    """Decode bytes of bfloat16, little-endian, as float32."""
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


def allowed_calls():
    """Give {(module, name): stand-in}, made anew for each file, so that no file can change another's."""

    class Ignored:
        def __init__(self, *arguments, **keywords):
            pass

        def __setstate__(self, state):
            pass

    def rebuild_tensor(storage, offset, size, stride, *unused):
        return View(storage, offset, size, stride)

    def rebuild_typed(function, new_type, arguments, state):
        return rebuild_tensor(*arguments)

    calls = {(module, name): Ignored for module, names in IGNORED.items() for name in names.split()}
    calls["collections", "OrderedDict"] = lambda items=(): Dictionary(items)
    calls["collections", "defaultdict"] = lambda *factory: Dictionary()
    calls["collections", "deque"] = lambda items=(), length=None: list(items)
    calls["_codecs", "encode"] = lambda text, encoding: text.encode("latin1")  # bytes, in protocol 2
    calls["builtins", "bytes"] = calls["__builtin__", "bytes"] = lambda: b""
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray", "_reconstruct"] = lambda *unused: ArrayData()
        calls[f"{core}.numeric", "_frombuffer"] = lambda *arguments: ArrayData(*arguments)
    calls["numpy", "dtype"] = lambda *arguments: ArrayType(*arguments)
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        calls["torch._utils", name] = rebuild_tensor
    for name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        calls["torch._utils", name] = lambda data, *unused: data
    calls["torch._tensor", "_rebuild_from_type_v2"] = rebuild_typed
    calls.update({("torch", name): StorageType(name) for name in DTYPES})
    return calls


class Unpickler(pickle._Unpickler):  # in Python: the one in C makes room for as many objects as a file claims
    """Unpickler that knows `allowed_calls` only; `load_storage` resolves a persistent identifier."""

    def __init__(self, file, load_storage):
        super().__init__(file, encoding="utf-8")
        self.calls = allowed_calls()
        self.load_storage = load_storage

    def find_class(self, module, name):
        if (module, name) not in self.calls:
            raise UnsafePickleError(f"it would call {module}.{name}, which builds no weights; nothing of it was run")
        return self.calls[module, name]

    def persistent_load(self, identifier):
        if not (isinstance(identifier, tuple) and len(identifier) >= 5 and identifier[0] == "storage"):
            raise UnreadableFileError("unknown kind of storage")
        if not isinstance(identifier[1], StorageType):
            raise UnreadableFileError("unknown kind of storage")
        return self.load_storage(*identifier[1:5])

    def load_bytearray8(self):
        """Read a bytearray as bytes, without making room for what the file claims."""
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    dispatch = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: load_bytearray8}
