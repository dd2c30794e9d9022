"""Export: the file gives the network's outputs, and a wrong one is never left behind."""

import importlib.util

import mindspore
import numpy as np
import pytest
from helpers import PROJECT, call_here, normal, randomise_batch_norm, reference
from mindspore import Tensor

from src.errors import UserError
from src.export.export import compare_outputs, export
from src.export.exported import ExportedNetwork, open_exported, read_notes
from src.export.folding import fold_batch_norm
from src.ghostnetv2 import create_network

SIZE = (3, 40, 56)
IMAGES = normal(5, *SIZE, seed=7)


@pytest.fixture(scope="module")
def network():
    return randomise_batch_norm(create_network("ghostnetv2_1x", num_classes=7))


@pytest.fixture(scope="module")
def expected(network):
    """Logits of five images, computed operator by operator: the exported files are graphs."""
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    return network(Tensor(IMAGES)).asnumpy()


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-5 * np.ptp(expected)


def operators(path):
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    return {node.op_type.split(":")[2] for node in model.graph.node if node.op_type.startswith("REF::")}


def test_mindir_with_any_batch(tmp_path, network, expected):
    path = tmp_path / "network.mindir"
    assert export(network, path, "MINDIR", SIZE, batch=None, notes={"settings": "a: 1"}) < 1e-5
    assert [file.name for file in tmp_path.iterdir()] == ["network.mindir"]
    assert read_notes(path) == {"settings": "a: 1"}
    exported = open_exported(path)
    assert exported.input_shape == (None, *SIZE)
    assert "Conv2D" in operators(path) and "BatchNorm" not in operators(path)
    for count in (1, 5):
        assert_close(exported.run(IMAGES[:count])[0], expected[:count])


def test_mindir_with_fixed_batch_softmax_and_batch_norm(tmp_path, network, expected):
    path = tmp_path / "network.mindir"
    names = [parameter.name for parameter in network.get_parameters()]
    assert export(network, path, "MINDIR", SIZE, batch=2, softmax=True, fold=False) < 1e-5
    assert [parameter.name for parameter in network.get_parameters()] == names
    assert "BatchNorm" in operators(path)
    powers = np.exp(expected)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    exported = ExportedNetwork(path)
    assert_close(exported.file.run(IMAGES[:2])[0], probabilities[:2])
    # batches of 2 for 5 images, logarithms in place of logits
    logits = exported(Tensor(IMAGES)).asnumpy()
    assert_close(np.exp(logits), probabilities)


@pytest.mark.parametrize(("batch", "softmax"), [(None, False), (2, True)])
def test_onnx(tmp_path, network, expected, batch, softmax):
    reference("onnx"), reference("onnxruntime")
    path = tmp_path / "network.onnx"
    assert export(network, path, "ONNX", SIZE, batch=batch, softmax=softmax) < 1e-5
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]
    assert open_exported(path).input_shape == (batch, *SIZE)
    logits = ExportedNetwork(path).set_train(False)(Tensor(IMAGES)).asnumpy()
    if softmax:  # logits are known up to a constant
        logits, expected = (y - y.mean(axis=1, keepdims=True) for y in (logits, expected))
    assert_close(logits, expected)


def test_a_difference_is_refused():
    a, b = np.array([1.0, 2.0], np.float32), np.array([1.0, 2.1], np.float32)
    assert compare_outputs([a], [a], "x") == 0
    with pytest.raises(UserError, match=r"x: not written: .* differs from the original by 0\.1"):
        compare_outputs([a], [b], "x")
    with pytest.raises(UserError, match=r"differs from the original by 0\.1"):  # small beside the other output
        compare_outputs([a, 5000 * a], [b, 5000 * a], "x")
    with pytest.raises(UserError, match="differs from the original by nan"):
        compare_outputs([a], [a * float("nan")], "x")
    with pytest.raises(UserError, match=r"gives \[\(1,\)\], the original \[\(2,\)\]"):
        compare_outputs([a], [a[:1]], "x")


def test_a_wrong_file_is_not_left(tmp_path, network, monkeypatch):
    reference("onnx"), reference("onnxruntime")
    path = tmp_path / "network.onnx"
    path.write_text("before")

    def wrong(network):
        folded = fold_batch_norm(network)
        folded.classifier.bias.set_data(folded.classifier.bias + 1)
        return folded

    monkeypatch.setattr("src.export.export.fold_batch_norm", wrong)
    with pytest.raises(UserError, match="not written: the exported network differs from the original by 1"):
        export(network, path, "ONNX", SIZE)
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]
    assert path.read_text() == "before"


@pytest.mark.parametrize(
    ("file_format", "shape", "options", "message"),
    [
        ("AIR", SIZE, {}, "AIR: needs an Ascend device, this is CPU"),
        ("ONNX", SIZE, {"fold": False}, "ONNX: always has batch normalisation folded"),
        ("MINDIR", (3, 32, 40), {}, "images of 32x40 pixels are too small: at least 33"),
    ],
)
def test_what_is_not_possible(tmp_path, network, file_format, shape, options, message):
    if file_format == "AIR" and mindspore.get_context("device_target") == "Ascend":
        pytest.skip("this machine has an Ascend device")
    with pytest.raises(UserError, match=message):
        export(network, tmp_path / "a", file_format, shape, **options)
    assert not list(tmp_path.iterdir())


def test_image_size_on_the_command_line():
    from export import read_image_size

    assert read_image_size("192x256") == (192, 256)
    with pytest.raises(UserError, match="--image_size '224' is not of the form HxW, such as 192x256"):
        read_image_size("224")


def test_onnx_without_the_package(tmp_path, network, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package onnx: pip install onnx"):
        export(network, tmp_path / "a.onnx", "ONNX", SIZE)


@pytest.mark.parametrize(
    ("config", "flags", "message"),
    [
        ("detection/bccd", ("--file_format", "ONNX"), "ONNX: is not for detection, which has MINDIR, AIR"),
        ("segmentation/camvid", ("--file_format", "ONNX"), "ONNX: is not for segmentation, which has MINDIR, AIR"),
        ("detection/bccd", ("--softmax",), "one output of logits, this network gives boxes, objectness, class_scores"),
        ("detection/bccd", ("--image_size", "64x64"), "outputs are for one size, which data.image_size=N sets"),
    ],
)
def test_what_a_task_does_not_have_is_refused_in_one_line(tmp_path, config, flags, message):
    """Before the checkpoint is read."""
    arguments = ("--config", PROJECT / "configs" / f"{config}.yaml", "--checkpoint_path", "no.ckpt")
    result = call_here("export.py", *arguments, *flags, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {flags[0]}") and result.stderr.endswith(f"{message}\n"), result.stderr
    assert result.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
