"""What a PyTorch file may hold beside its weights, arrays of NumPy, and that nothing a file names is run."""

import argparse
import collections
import datetime
import decimal
import operator
import os
import pathlib
import pickle
import types
import uuid

import numpy as np
import pytest
from helpers import normal, reference

from src.weights.torch_file import read_torch_file
from src.weights.unpickler import UnreadableFileError, UnsafePickleError

WEIGHT = normal(2, 3)
VALUES = {
    "set": {1, 2},
    "frozenset": frozenset([1]),
    "PosixPath": pathlib.Path("/runs/1"),
    "PurePosixPath": pathlib.PurePosixPath("runs"),
    "PureWindowsPath": pathlib.PureWindowsPath("C:/runs"),
    "complex": 1 + 2j,
    "bytes": b"abc",
    "empty bytes": b"",
    "bytearray": bytearray(b"abc"),
    "slice": slice(1, 2),
    "range": range(3),
    "ellipsis": ...,
    "types": (int, float, str, list, dict),
    "large integer": 2**100,
    "datetime": datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc),
    "timedelta": datetime.timedelta(3),
    "defaultdict": collections.defaultdict(list, {1: [2]}),
    "Counter": collections.Counter("abc"),
    "deque": collections.deque([1, 2], maxlen=3),
    "OrderedDict": collections.OrderedDict(a=1),
    "Namespace": argparse.Namespace(lr=0.1),
    "SimpleNamespace": types.SimpleNamespace(lr=0.1),
    "UUID": uuid.UUID(int=1),
    "Decimal": decimal.Decimal("1.5"),
    "NumPy scalar": np.float64(3),
    "NumPy array": np.arange(3),
    "NumPy text": np.array(["a"]),
    "NumPy objects": np.array([None, {}], object),
    "NumPy record": np.zeros(2, [("a", "f4")]),
    "NumPy type": (np.float32, np.dtype("f4")),
    "NumPy random state": np.random.default_rng(0).bit_generator.state,
}
TORCH_VALUES = {
    "dtype": lambda torch: (torch.float32, torch.bfloat16, torch.int64),
    "layout": lambda torch: torch.strided,
    "device": lambda torch: torch.device("cpu"),
    "Size": lambda torch: torch.Size([1, 2]),
    "random state": lambda torch: torch.get_rng_state(),
    "version": lambda torch: torch.__version__,
    "complex tensor": lambda torch: torch.ones(2, dtype=torch.complex64),
    "parameter": lambda torch: torch.nn.Parameter(torch.ones(2)),
    "parameter with an attribute": lambda torch: with_attribute(torch.nn.Parameter(torch.ones(2))),
    "tensor with an attribute": lambda torch: with_attribute(torch.ones(2)),
}
FORMS = ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}, {"pickle_protocol": 5})


def with_attribute(tensor):
    tensor.note = 1
    return tensor


@pytest.mark.parametrize("name", [*VALUES, *TORCH_VALUES])
def test_values_beside_the_weights_do_no_harm(tmp_path, name):
    torch = reference("torch")
    value = VALUES[name] if name in VALUES else TORCH_VALUES[name](torch)
    for form in FORMS:
        torch.save({"state_dict": {"weight": torch.from_numpy(WEIGHT)}, "value": value}, tmp_path / "a.pth", **form)
        expected = torch.load(tmp_path / "a.pth", weights_only=False)["state_dict"]["weight"]
        section = next(section for section in read_torch_file(tmp_path / "a.pth") if section.arrays)
        assert section.name == "state_dict" and np.array_equal(section.arrays["weight"], expected.numpy())


def test_a_windows_path_does_no_harm(tmp_path, monkeypatch):
    """Such a file cannot be written here, but its bytes can."""
    content = pickle.dumps({"weight": WEIGHT, "path": pathlib.PurePosixPath("a")}, protocol=2)
    for module in (b"pathlib", b"pathlib._local"):
        forged = content.replace(b"cpathlib\nPurePosixPath\n", b"c" + module + b"\nWindowsPath\n")
        assert forged != content
        (tmp_path / "a.pkl").write_bytes(forged)
        assert np.array_equal(read_torch_file(tmp_path / "a.pkl")[-1].arrays["weight"], WEIGHT)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_state_dicts_of_numpy_arrays_are_read(tmp_path, protocol, core):
    arrays = {
        "weight": WEIGHT,
        "half": WEIGHT.astype(np.float16),
        "big-endian": WEIGHT.astype(">f4"),
        "fortran": np.asfortranarray(WEIGHT),
        "integer": np.arange(3),
        "flag": np.array([True]),
        "single": np.array(3.0),
        "empty": np.zeros((0, 3), np.float32),
    }
    content = pickle.dumps({**arrays, "names": np.array(["a", "b"])}, protocol=protocol)
    old = np.array(0).__reduce__()[0].__module__.rpartition(".")[0].encode()
    if protocol < 4:  # without lengths in front of the names
        content = content.replace(b"c" + old + b".", b"c" + core + b".")
    (tmp_path / "a.pkl").write_bytes(content)
    read = read_torch_file(tmp_path / "a.pkl")[-1].arrays
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(read[name], array) and read[name].dtype == array.dtype.newbyteorder("="), name


def test_numpy_arrays_among_tensors_are_no_weights(tmp_path):
    torch = reference("torch")
    torch.save({"weight": torch.from_numpy(WEIGHT), "class_means": np.ones(3)}, tmp_path / "a.pth")
    assert list(read_torch_file(tmp_path / "a.pth")[-1].arrays) == ["weight"]


class Payload:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def attacks(mark):
    """Objects whose unpickling would make the file `mark`."""
    shell = f"touch {mark}"
    return {
        "os.system": Payload(os.system, shell),
        "eval": Payload(eval, f"open({str(mark)!r}, 'w')"),
        "getattr": Payload(getattr, Payload(dict), "clear"),
        "attrgetter": Payload(operator.attrgetter, "system"),
        "methodcaller": Payload(operator.methodcaller, "touch"),
        "numpy.load": Payload(np.load, str(mark), None, True),
        "reconstruct": Payload(np.core.multiarray._reconstruct, Payload(os.system, shell), (0,), b"b"),
        "dtype": Payload(np.dtype, Payload(os.system, shell)),
        "in an array of objects": np.array([Payload(os.system, shell)], object),
        "in a set": {Payload(os.system, shell)},
        "factory": Payload(collections.defaultdict, Payload(os.system, shell)),
        "path": Payload(pathlib.Path, Payload(os.system, shell)),
    }


@pytest.mark.parametrize("name", attacks("mark"))
def test_nothing_that_a_file_names_is_run(tmp_path, name):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"weight": WEIGHT, "x": attacks(tmp_path / "mark")[name]}))
    with pytest.raises(UnsafePickleError, match="it would call .*; nothing of it was run"):
        read_torch_file(tmp_path / "a.pkl")
    assert not (tmp_path / "mark").exists()


def test_every_name_stands_for_something_of_our_own():
    """Of all names that a file may call, none is the thing itself."""
    from src.weights.unpickler import allowed_calls

    for (module, name), call in allowed_calls().items():
        assert (getattr(call, "__module__", None) or type(call).__module__) == "src.weights.unpickler", (module, name)


def test_a_file_cannot_change_what_the_next_one_calls(tmp_path):
    """A pickle may set attributes of what it has, here of the stand-in for OrderedDict."""
    attack = b"\x80\x02ccollections\nOrderedDict\n}X\x0c\x00\x00\x00__defaults__(K\x07tsb."
    (tmp_path / "a.pkl").write_bytes(attack)
    with pytest.raises(UnreadableFileError):
        read_torch_file(tmp_path / "a.pkl")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(collections.OrderedDict(weight=WEIGHT)))
    assert np.array_equal(read_torch_file(tmp_path / "b.pkl")[-1].arrays["weight"], WEIGHT)


@pytest.mark.parametrize(
    "claim",
    [
        b"\x80\x02Nr\xff\xff\xff\x07.",  # memo entry 2**27 - 1
        b"\x80\x05\x96" + (2 * 10**9).to_bytes(8, "little") + b"abc",  # bytearray of 2 GB
        b"\x80\x05\x8e" + (2 * 10**9).to_bytes(8, "little") + b"abc",  # bytes
        b"\x80\x04\x95" + (2 * 10**9).to_bytes(8, "little") + b"abc",  # frame
    ],
    ids=["memo", "bytearray", "bytes", "frame"],
)
def test_a_claim_of_much_memory_takes_none(tmp_path, claim):
    resource = pytest.importorskip("resource")
    (tmp_path / "a.pkl").write_bytes(claim)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableFileError):
        read_torch_file(tmp_path / "a.pkl")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
