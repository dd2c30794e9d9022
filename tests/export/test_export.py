"""Export: the file gives the network's outputs, and a wrong one is never left behind."""

import importlib.util
from functools import partial

import helpers
import mindspore
import numpy as np
import pytest
from helpers import PROJECT, call_here, normal, randomise, reference
from mindspore import Tensor

from src.classification.export_graph import describe_classifier
from src.errors import UserError
from src.export.export import compare_outputs, export, split_batches
from src.export.exported import ExportedNetwork, open_exported, read_notes
from src.export.folding import fold_batch_norm
from src.ghostnetv2 import create_network

SIZE = (3, 40, 56)
IMAGES = normal(5, *SIZE, seed=7)


@pytest.fixture(scope="module")
def network():
    return randomise(create_network("ghostnetv2_1x", num_classes=7))


@pytest.fixture(scope="module")
def expected(network):
    """Logits of five images, computed operator by operator: the exported files are graphs."""
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    return network(Tensor(IMAGES)).asnumpy()


assert_close = partial(helpers.assert_close, tolerance=1e-5)


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


@pytest.mark.parametrize(
    "options",
    [
        {"dfc_kernel_size": (4, (6, 3), 5), "dfc_axes": "square", "dfc_gate": "clip", "dfc_target": "both"},
        {"dfc_axes": "rows", "dfc_gate": "relu", "dfc_up_sampling": "bicubic", "dfc_down_sampling": "none"},
        {"dfc_axes": "columns", "dfc_kernel_size": "full", "dfc_stages": (8, 32), "dfc_down_sampling": "bilinear"},
    ],
    ids=str,
)
def test_mindir_of_dfc_options(tmp_path, options):
    network = randomise(create_network("ghostnetv2_1x", num_classes=5, width=0.25, **options))
    assert export(network, tmp_path / "a.mindir", "MINDIR", (3, 47, 66), batch=1) < 1e-5


@pytest.mark.parametrize(
    ("batch", "softmax", "weights_type"), [(None, False, "float32"), (2, True, "float32"), (None, False, "float16")]
)
def test_onnx(tmp_path, network, expected, batch, softmax, weights_type):
    reference("onnx"), reference("onnxruntime")
    path, options = tmp_path / "network.onnx", {"describe": describe_classifier, "weights_type": weights_type}
    difference = export(network, path, "ONNX", SIZE, batch=batch, softmax=softmax, **options)
    assert difference < (1e-5 if weights_type == "float32" else 1e-2)
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]
    assert open_exported(path).input_shape == (batch, *SIZE)
    logits = ExportedNetwork(path).set_train(False)(Tensor(IMAGES)).asnumpy()
    if softmax:  # logits are known up to a constant
        logits, expected = (y - y.mean(axis=1, keepdims=True) for y in (logits, expected))
    assert_close(logits, expected, tolerance=1e-5 if weights_type == "float32" else 2e-3)


@pytest.mark.parametrize(
    ("batch", "softmax", "weights_type"), [(1, False, "float32"), (2, True, "float32"), (2, False, "float16")]
)
def test_tflite(tmp_path, capfd, network, expected, batch, softmax, weights_type):
    reference("ai_edge_litert")
    path, options = tmp_path / "network.tflite", {"describe": describe_classifier, "weights_type": weights_type}
    notes = {"settings": "a: ä"}
    difference = export(network, path, "TFLITE", SIZE, batch=batch, softmax=softmax, notes=notes, **options)
    assert difference < (1e-5 if weights_type == "float32" else 1e-2)
    assert [file.name for file in tmp_path.iterdir()] == ["network.tflite"]
    assert read_notes(path) == {**notes, **({"outputs": "probabilities"} if softmax else {})}
    exported = open_exported(path)
    assert (exported.input_shape, exported.output_shape) == ((batch, *SIZE), (batch, 7))
    logits = ExportedNetwork(path).set_train(False)(Tensor(IMAGES)).asnumpy()
    if softmax:  # logits are known up to a constant
        logits, expected = (y - y.mean(axis=1, keepdims=True) for y in (logits, expected))
    assert_close(logits, expected, tolerance=1e-5 if weights_type == "float32" else 2e-3)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("file_format", "package", "batch"),
    [
        ("TFLITE", "ai_edge_quantizer", 2),
        pytest.param("ONNX", "onnxruntime", None, marks=pytest.mark.long),
        pytest.param("ONNX", "onnxruntime", 2, marks=pytest.mark.slow),
    ],
)
def test_int8(tmp_path, capfd, network, expected, file_format, package, batch):
    """Calibrated on the images that it is then asked about; the ranges of others may be too narrow for them."""
    reference(package)
    sizes = []

    def calibrate(float_network):
        float_network(IMAGES)  # a file of float32, open
        return IMAGES

    for weights_type in ("float32", "int8"):
        path = tmp_path / f"{weights_type}.{file_format.lower()}"
        options = {"describe": describe_classifier, "weights_type": weights_type, "calibrate": calibrate}
        export(network, path, file_format, SIZE, batch=batch, notes={"settings": "a: 1"}, **options)
        sizes.append(path.stat().st_size)
    assert sizes[1] < 0.36 * sizes[0]
    assert read_notes(path) == {"settings": "a: 1"}
    exported = ExportedNetwork(path)
    assert exported.file.input_shape == (batch, *SIZE)
    difference = np.abs(exported(Tensor(IMAGES)).asnumpy() - expected).mean()
    assert 1e-4 < difference / np.ptp(expected) < 0.1
    assert capfd.readouterr().err == ""


def test_a_difference_is_refused():
    a, b = np.array([1.0, 2.0], np.float32), np.array([1.0, 2.1], np.float32)
    assert compare_outputs([a], [a], "x", 1e-4) == 0
    with pytest.raises(UserError, match=r"x: not written: .* differs from the original by 0\.1"):
        compare_outputs([a], [b], "x", 1e-4)
    with pytest.raises(UserError, match=r"differs from the original by 0\.1"):  # small beside the other output
        compare_outputs([a, 5000 * a], [b, 5000 * a], "x", 1e-4)
    with pytest.raises(UserError, match="differs from the original by nan"):
        compare_outputs([a], [a * float("nan")], "x", 1e-4)
    with pytest.raises(UserError, match=r"gives \[\(1,\)\], the original \[\(2,\)\]"):
        compare_outputs([a], [a[:1]], "x", 1e-4)


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
        export(network, path, "ONNX", SIZE, describe=describe_classifier)
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]
    assert path.read_text() == "before"


@pytest.mark.parametrize(
    ("file_format", "shape", "options", "message"),
    [
        ("AIR", SIZE, {}, "AIR: needs an Ascend device, this is CPU"),
        ("ONNX", SIZE, {"fold": False}, "ONNX: always has batch normalisation folded"),
        ("MINDIR", (3, 32, 40), {}, "images of 32x40 pixels are too small: at least 33"),
        ("TFLITE", SIZE, {"fold": False}, "TFLITE: always has batch normalisation folded"),
        ("TFLITE", SIZE, {"batch": None}, "--dynamic_batch: TFLITE files have a fixed batch, which --batch_size sets"),
        ("MINDIR", SIZE, {"weights_type": "int8"}, "--weights_type int8: is for ONNX and TFLITE, MINDIR has float32"),
    ],
)
def test_what_is_not_possible(tmp_path, network, file_format, shape, options, message):
    if file_format == "AIR" and mindspore.get_context("device_target") == "Ascend":
        pytest.skip("this machine has an Ascend device")
    with pytest.raises(UserError, match=message):
        export(network, tmp_path / "a", file_format, shape, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file_format", "module", "package"),
    [("TFLITE", "ai_edge_quantizer", "ai-edge-quantizer"), ("ONNX", "onnxruntime", "onnxruntime")],
)
def test_int8_without_the_package_is_one_line(tmp_path, network, monkeypatch, file_format, module, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else True)
    with pytest.raises(UserError, match=f"int8: needs the package {package}: pip install {package}$"):
        export(network, tmp_path / "a", file_format, SIZE, weights_type="int8")


def test_calibration_fills_the_last_batch_up():
    assert split_batches(np.arange(5), 2).tolist() == [[0, 1], [2, 3], [4, 0]]
    assert split_batches(np.arange(2), 5).tolist() == [[0, 1, 0, 1, 0]]


def test_image_size_on_the_command_line():
    from export import read_image_size

    assert read_image_size("192x256") == (192, 256)
    with pytest.raises(UserError, match="--image_size '224' is not of the form HxW, such as 192x256"):
        read_image_size("224")


@pytest.mark.parametrize(("file_format", "package"), [("ONNX", "onnx"), ("TFLITE", "ai-edge-litert")])
def test_without_the_package_one_line_says_what_to_install(tmp_path, network, monkeypatch, file_format, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"{file_format}: needs the package {package}: pip install {package}$"):
        export(network, tmp_path / "a", file_format, SIZE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "flags", "message"),
    [
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
