"""MindSpore checkpoints and safetensors of every type, against MindSpore's and PyTorch's own readers and writers."""

import mindspore
import numpy as np
import pytest
from helpers import normal, reference
from mindspore import Parameter, Tensor, nn

from src.errors import UserError
from src.weights import load_weights, read_weights, save_weights, write_weights
from src.weights.mindspore_file import read_checkpoint
from src.weights.safetensors_file import read_safetensors

VALUES = {
    "float32": normal(2, 3),
    "float16": normal(2, 3).astype(np.float16),
    "float64": normal(2, 3).astype(np.float64),
    **{name: np.arange(6).reshape(2, 3).astype(name) for name in ("int8", "int16", "int32", "int64", "uint8")},
    "bool": np.array([True, False]),
    "single": np.array(3.0, np.float32),
    "one": np.array([3.0], np.float32),
}


@pytest.mark.parametrize("checked", [False, True])
def test_checkpoints_are_read_as_mindspore_reads_them(tmp_path, checked):
    path = str(tmp_path / "a.ckpt")
    entries = [{"name": name, "data": Tensor(value)} for name, value in VALUES.items()]
    notes = {"epoch": 3, "rate": 0.5, "name": "é" * 3, "empty": ""}
    mindspore.save_checkpoint(entries, path, append_dict=notes, crc_check=checked)
    arrays, texts = read_checkpoint(path)
    theirs = mindspore.load_checkpoint(path)
    assert texts == {"name": "é" * 3, "empty": ""} == {k: v for k, v in theirs.items() if isinstance(v, str)}
    assert list(arrays) == [name for name in theirs if name not in texts]
    for name, array in arrays.items():
        expected = theirs[name].asnumpy()
        assert array.dtype == expected.dtype and array.shape == expected.shape and np.array_equal(array, expected), name


def test_bfloat16_becomes_float32(tmp_path):
    torch, values = reference("torch"), normal(2, 3)
    expected = torch.from_numpy(values).bfloat16()
    mindspore.save_checkpoint([{"name": "a", "data": Tensor(values, mindspore.bfloat16)}], str(tmp_path / "a.ckpt"))
    reference("safetensors.torch").save_file({"a": expected}, tmp_path / "a.safetensors")
    for name in ("a.ckpt", "a.safetensors"):
        array = read_weights(tmp_path / name).weights["a"]
        assert array.dtype == np.float32 and np.array_equal(array, expected.float().numpy()), name


def test_a_large_array_lies_in_pieces(tmp_path, monkeypatch):
    """Of half a gigabyte each in MindSpore, here of a kilobyte."""
    array = normal(40, 30)
    monkeypatch.setattr("mindspore.train.serialization.SLICE_SIZE", 1)
    mindspore.save_checkpoint([{"name": "a", "data": Tensor(array)}], str(tmp_path / "a.ckpt"))
    assert np.array_equal(read_checkpoint(tmp_path / "a.ckpt")[0]["a"], array)


def test_safetensors_of_every_type(tmp_path):
    torch = reference("torch")
    tensors = {name: torch.from_numpy(value) for name, value in VALUES.items()}
    reference("safetensors.torch").save_file(tensors, tmp_path / "a.safetensors")
    arrays = read_safetensors(tmp_path / "a.safetensors")
    assert arrays.keys() == VALUES.keys()
    for name, value in VALUES.items():
        assert arrays[name].dtype == value.dtype and np.array_equal(arrays[name], value), name


def test_an_encrypted_checkpoint_is_named(tmp_path):
    network = nn.Dense(2, 2)
    mindspore.save_checkpoint(network, str(tmp_path / "a.ckpt"), enc_key=b"0123456789abcdef")
    with pytest.raises(UserError, match=r"a\.ckpt: is an encrypted MindSpore checkpoint, not weights"):
        load_weights(network, tmp_path / "a.ckpt")


def test_mindspores_own_log_is_quiet(tmp_path, capfd):
    (tmp_path / "a.ckpt").write_bytes(bytes(1000))
    capfd.readouterr()
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / "a.ckpt")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_weights_of_another_precision_are_converted(tmp_path, dtype):
    network, values = nn.Dense(2, 2), {"weight": normal(2, 2).astype(dtype), "bias": np.ones(2, dtype)}
    write_weights(values, tmp_path / "a.ckpt")
    load_weights(network, tmp_path / "a.ckpt")
    assert np.array_equal(network.weight.asnumpy(), values["weight"].astype(np.float32))


@pytest.mark.parametrize(
    ("ending", "dtype"),
    [("ckpt", np.int8), ("ckpt", np.bool_), ("safetensors", np.int8), ("safetensors", np.complex64)],
)
def test_weights_that_are_no_fractions_are_refused(tmp_path, ending, dtype):
    """Those of a quantised network, say, whose scales are elsewhere."""
    path = tmp_path / f"a.{ending}"
    write_weights({"weight": np.ones((2, 2), dtype), "bias": np.ones(2, np.float32)}, path)
    with pytest.raises(UserError, match=rf"1 wrong type \(weight is {np.dtype(dtype)}, needs float32\)"):
        load_weights(nn.Dense(2, 2), path)


def test_weights_without_meaning_are_told(tmp_path):
    network = nn.Dense(2, 2)
    save_weights(network, tmp_path / "a.ckpt")
    assert "warning" not in load_weights(network, tmp_path / "a.ckpt")
    for bad in (np.nan, np.inf):
        network.bias = Parameter(Tensor(np.array([0, bad], np.float32)), name="bias")
        save_weights(network, tmp_path / "a.ckpt")
        loaded = load_weights(network, tmp_path / "a.ckpt")
        assert loaded.endswith("; warning: 1 of 2 arrays hold nan or inf (bias)")
