"""Exported files in evaluation: the same metrics as the checkpoint, and one line for what does not fit."""

import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import PROJECT, call_here, normal, randomise, reference, write_images
from mindspore import Tensor, nn

from src.classification.settings import ClassificationConfig
from src.detection.settings import DetectionConfig
from src.errors import UserError
from src.export.export import ExportSignature
from src.export.exported import ExportedNetwork, open_exported, read_notes, with_image_size
from src.export.mindir_file import write_mindspore
from src.inference.loading import load_network
from src.layers.arrays import ArrayNetwork
from src.networks import create_network
from src.segmentation.segmenter import Segmenter
from src.segmentation.settings import DataSettings, SegmentationConfig, SegmentationEvaluationSettings
from src.weights import read_weights, save_weights

CONFIG = PROJECT / "configs" / "classification" / "digits.yaml"
SETTINGS = ["network.num_classes=2", "data.image_size=40", "data.eval_resize=40", "evaluation.batch_size=4"]
CHECKPOINT = ("--config", CONFIG, "--data_url", "data", *SETTINGS, "runtime.graph_mode=false")
INT8 = ("--file_format", "ONNX", "--weights_type", "int8", "--calibration_data", "data/val")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five images in two classes, a checkpoint, and its exports."""
    reference("onnx"), reference("onnxruntime"), reference("ai_edge_litert")
    root = tmp_path_factory.mktemp("exported")
    write_images(root / "data", {"val": {"bright": 3, "dark": 2}}, size=(50, 44))
    save_weights(randomise(create_network("ghostnetv2_1x", 2)), root / "net.ckpt")
    for arguments in (
        ("--file_format", "ONNX", "--file_name", "two.onnx", "--batch_size", 2, "--softmax"),
        ("--file_format", "MINDIR", "--file_name", "any", "--dynamic_batch"),
        ("--file_format", "TFLITE", "--file_name", "three", "--batch_size", 3, "--softmax"),
        ("--file_format", "ONNX", "--file_name", "larger", "--image_size", "48x48"),
        (*INT8, "--file_name", "small", "--dynamic_batch"),
    ):
        checkpoint = ("--config", CONFIG, "--checkpoint_path", "net.ckpt", "--data_url", "data")
        result = call_here("export.py", *checkpoint, *arguments, *SETTINGS, cwd=root)
        assert result.returncode == 0, result.stderr
        assert re.search(r"loaded back: differs by \S+ at most", result.stdout)
    return root


def evaluate(folder, name, *arguments):
    result = call_here("eval.py", "--checkpoint_path", name, *arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    found = re.search(r"'top_1_accuracy': (\S+),.*'loss': (\S+), 'images': 5", result.stdout)
    return float(found[1]), float(found[2])


def test_evaluation_equals_that_of_the_checkpoint(folder):
    expected = evaluate(folder, "net.ckpt", *CHECKPOINT)
    for name in ("two.onnx", "any.mindir", "three.tflite"):  # with the settings that the files hold
        accuracy, loss = evaluate(folder, name)
        assert accuracy == expected[0]
        assert loss == pytest.approx(expected[1], rel=1e-5)


def test_int8_in_evaluation_and_prediction(folder):
    expected = evaluate(folder, "net.ckpt", *CHECKPOINT)
    accuracy, loss = evaluate(folder, "small.onnx")
    assert 1e-6 < abs(loss - expected[1]) < 0.2 and abs(accuracy - expected[0]) <= 0.4
    for script, flag in (("scripts/predict.py", "--checkpoint_path"), ("scripts/predict_file.py", "--file")):
        result = call_here(script, "data/val/dark", flag, "small.onnx", cwd=folder)
        assert result.returncode == 0, result.stderr
        assert len(re.findall(r"([\d.]+)%", result.stdout)) == 4


def test_a_file_of_another_size_knows_it(folder):
    larger = ("data.image_size=48", "data.eval_resize=48")
    expected = evaluate(folder, "net.ckpt", *CHECKPOINT, *larger)
    assert evaluate(folder, "larger.onnx") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("config", "size", "expected"),
    [
        (ClassificationConfig(), (96, 96), {"image_size": 96, "eval_resize": 256}),
        (ClassificationConfig(), (288, 288), {"image_size": 288, "eval_resize": 288}),
        (ClassificationConfig(), (96, 128), {"image_size": 224, "eval_resize": 256}),
        (SegmentationConfig(), (96, 128), {"image_size": (96, 128)}),
        (DetectionConfig(), (320, 320), {"image_size": 320}),
    ],
)
def test_settings_take_the_size_of_the_file(config, size, expected):
    changed = with_image_size(config, size)
    assert {key: getattr(changed.data, key) for key in expected} == expected
    assert replace(changed, data=config.data) == config


def test_prediction_equals_that_of_the_checkpoint(folder):
    def predict(name, *arguments):
        result = call_here("scripts/predict.py", "data/val/dark", "--checkpoint_path", name, *arguments, cwd=folder)
        assert result.returncode == 0, result.stderr
        return [float(share) for share in re.findall(r"([\d.]+)%", result.stdout)]

    shares = predict("net.ckpt", *CHECKPOINT)
    assert len(shares) == 4
    assert predict("two.onnx") == pytest.approx(shares, abs=0.011)
    assert predict("three.tflite") == pytest.approx(shares, abs=0.011)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("two.onnx", ("data.image_size=38",), "takes images of 3x40x40, the settings give 3x38x38: data.image_size"),
        ("any.mindir", ("--num_classes", 3), "any.mindir: gives 2 classes, the settings say 3; --num_classes 2 fits"),
        (
            "three.tflite",
            ("data.image_size=38",),
            "takes images of 3x40x40, the settings give 3x38x38: data.image_size",
        ),
        ("three.tflite", ("--num_classes", 3), "gives 2 classes, the settings say 3; --num_classes 2 fits"),
        ("no.onnx", (), "no.onnx: no such file"),
        ("no.tflite", (), "no.tflite: no such file"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, name, arguments, message):
    result = call_here("eval.py", "--checkpoint_path", name, *arguments, cwd=folder)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert message in result.stderr


@pytest.mark.parametrize("name", ["bad.onnx", "bad.mindir", "bad.tflite"])
def test_a_damaged_file_is_named(tmp_path, name):
    if not name.endswith(".mindir"):
        reference("onnxruntime" if name.endswith(".onnx") else "ai_edge_litert")
    (tmp_path / name).write_bytes(b"\x08\x07nothing to see here")
    for read in (open_exported, read_notes):
        with pytest.raises(
            UserError, match=rf"{name}: ((onnxruntime|LiteRT) cannot read it|is not a whole MINDIR file)"
        ):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("a.onnx", "onnxruntime", "onnxruntime"), ("a.tflite", "ai_edge_litert.interpreter", "ai-edge-litert")],
)
def test_without_a_runtime_one_line_says_what_to_install(tmp_path, monkeypatch, name, module, package):
    (tmp_path / name).write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"{name}: needs the package {package}: pip install {package}"):
        open_exported(tmp_path / name)


def test_exported_files_of_another_ending_are_named(folder, tmp_path):
    for name, message in (("any.mindir", "is a MINDIR file"), ("two.onnx", "is perhaps an ONNX file")):
        copy = tmp_path / f"{name}.ckpt"
        copy.write_bytes((folder / name).read_bytes())
        with pytest.raises(UserError, match=rf"{name}.ckpt: {message}"):
            read_weights(copy)


class MeanPixels(nn.Cell):
    """Means of the first two channels, as a map of one pixel."""

    def construct(self, x):
        return x[:, :2].mean((2, 3), True)


def write_means(path, shape):
    """Write a foreign ONNX file of the channels' means: no notes, and an input of another name."""
    onnx, _ = reference("onnx"), reference("onnxruntime")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("GlobalAveragePool", ["pixels"], ["y"]), helper.make_node("Flatten", ["y"], ["z"])]
    ports = [helper.make_tensor_value_info(*port) for port in (("pixels", float32, shape), ("z", float32, shape[:2]))]
    graph = helper.make_graph(nodes, "means", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


def write_onnx(path, inputs, outputs, nodes):
    """Write an ONNX file of nodes (operator, inputs, outputs) between ports (name, type, shape)."""
    onnx, _ = reference("onnx"), reference("onnxruntime")
    helper = onnx.helper
    ports = [[helper.make_tensor_value_info(*port) for port in group] for group in (inputs, outputs)]
    graph = helper.make_graph([helper.make_node(*node) for node in nodes], "graph", *ports)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "message"),
    [
        (1, {"x": (1, 3, 4, 6), "y": (1, 3, 4, 6)}, {"z": (1, 3, 4, 6)}, "has 2 inputs, a network for images has one"),
        (7, {"x": (1, 3, 4, 6)}, {"z": (1, 3, 4, 6)}, "takes no float32 1x3x4x6, a network for images float32 (N, C"),
        (1, {"x": (1, 72)}, {"z": (1, 72)}, "takes float32 1x72, a network for images float32 (N, C, H, W)"),
        (1, {"x": (1, 3, 4, 6)}, {"z": (1, 3), "u": (1, 3)}, "gives 2 outputs, not the 1: logits"),
        (1, {"x": (1, 3, 8, 8)}, {"z": (1, 3)}, "takes images of 3x8x8, the settings give 3x4x6: data.image_size"),
        (1, {"x": (1, 3, 4, 6)}, {"z": (3,)}, "gives 1 classes, the settings say 3"),
        (1, {"x": (1, 3, 4, 6)}, {"z": (1, 3, 4, 6)}, "gives logits of 4 dimensions, not 2"),
    ],
    ids=["two inputs", "integers", "flat", "two outputs", "another size", "no classes", "of pixels"],
)
def test_an_onnx_file_that_is_no_such_network(tmp_path, kind, inputs, outputs, message):
    path = tmp_path / "foreign.onnx"
    ports = [[(name, kind, shape) for name, shape in group.items()] for group in (inputs, outputs)]
    write_onnx(path, *ports, [("Identity", ["x"], [name]) for name in outputs])
    signature = ExportSignature("image", (3, 4, 6), ("logits",), 2, logit_classes=3, has_fixed_size=False)
    with pytest.raises(UserError) as error:
        load_network(SimpleNamespace(export_signature=lambda: signature), path, "ema")
    assert str(error.value).startswith(f"{path}: {message}")


def test_an_onnx_file_that_cannot_be_computed_is_one_line(tmp_path, capfd):
    path = tmp_path / "a.onnx"
    ports = [("x", 1, (1, 3, "H", 6))], [("z", 1, (1, 3, "H", 6))]
    write_onnx(path, *ports, [("Flatten", ["x"], ["flat"]), ("Add", ["x", "flat"], ["z"])])
    with pytest.raises(UserError, match=r"a\.onnx: onnxruntime cannot run it: .*"):
        open_exported(path).run(normal(1, 3, 4, 6))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("shape", "described", "input_size"),
    [((2, 3, 4, 6), "3x4x6, batch 2", (4, 6)), (("N", 3, "H", 6), "3x?x6, any batch", None)],
)
def test_a_foreign_onnx_file_is_taken_as_well(tmp_path, shape, described, input_size):
    path = tmp_path / "foreign.onnx"
    write_means(path, shape)
    signature = ExportSignature("image", (3, 4, 6), ("logits",), 2, logit_classes=3, has_fixed_size=False)
    network, loaded = load_network(SimpleNamespace(export_signature=lambda: signature), path, "ema")
    assert loaded == f"{path}: ONNX file for images of {described}"
    assert isinstance(network.network, ExportedNetwork) and network.input_size == input_size
    assert read_notes(path) == {}
    x = normal(5, 3, 4, 6)
    assert np.abs(network(Tensor(x)).asnumpy() - x.mean((2, 3))).max() < 1e-6


def test_an_exported_network_fixes_the_size_of_segmentation(tmp_path):
    """Its two classes are the means of the first two channels, one pixel large."""
    path = tmp_path / "logits.mindir"
    write_mindspore(MeanPixels(), path, "MINDIR", (3, 4, 6), 1, {})
    data = DataSettings(mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0), base_size=(64, 64))
    network = ExportedNetwork(path)
    segment = Segmenter(ArrayNetwork(network), 2, data, SegmentationEvaluationSettings())
    assert segment.input_sizes((50, 70)) == [(4, 6)] == [network.input_size]
    image = np.full((50, 70, 3), (10, 200, 30), np.uint8)
    assert segment(image).shape == (50, 70) and (segment(image) == 1).all()
