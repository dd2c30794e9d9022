"""Exported files in evaluation: the same metrics as the checkpoint, and one line for what does not fit."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import PROJECT, call_here, normal, randomise_batch_norm, reference, write_images
from mindspore import Tensor, nn

from src.errors import UserError
from src.export.export import ExportSignature, write_mindspore
from src.export.exported import ExportedNetwork, open_exported, read_notes
from src.ghostnetv2 import create_network
from src.inference.loading import load_network
from src.segmentation.segmenter import Segmenter
from src.segmentation.settings import DataSettings, SegmentationEvaluationSettings
from src.weights import save_weights

CONFIG = PROJECT / "configs" / "classification" / "digits.yaml"
SETTINGS = ["network.num_classes=2", "data.image_size=40", "data.eval_resize=40", "evaluation.batch_size=4"]
CHECKPOINT = ("--config", CONFIG, "--data_url", "data", *SETTINGS, "runtime.graph_mode=false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five images in two classes, a checkpoint, and its exports."""
    reference("onnx"), reference("onnxruntime")
    root = tmp_path_factory.mktemp("exported")
    write_images(root / "data", {"val": {"bright": 3, "dark": 2}}, size=(50, 44))
    save_weights(randomise_batch_norm(create_network("ghostnetv2_1x", 2)), root / "net.ckpt")
    for arguments in (
        ("--file_format", "ONNX", "--file_name", "two.onnx", "--batch_size", 2, "--softmax"),
        ("--file_format", "MINDIR", "--file_name", "any", "--dynamic_batch"),
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
    for name in ("two.onnx", "any.mindir"):  # with the settings that the files hold
        accuracy, loss = evaluate(folder, name)
        assert accuracy == expected[0]
        assert loss == pytest.approx(expected[1], rel=1e-5)


def test_prediction_equals_that_of_the_checkpoint(folder):
    def predict(name, *arguments):
        result = call_here("scripts/predict.py", "data/val/dark", "--checkpoint_path", name, *arguments, cwd=folder)
        assert result.returncode == 0, result.stderr
        return [float(share) for share in re.findall(r"([\d.]+)%", result.stdout)]

    shares = predict("net.ckpt", *CHECKPOINT)
    assert len(shares) == 4
    assert predict("two.onnx") == pytest.approx(shares, abs=0.011)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("two.onnx", ("data.image_size=38",), "takes images of 3x40x40, the settings give 3x38x38: data.image_size"),
        ("any.mindir", ("--num_classes", 3), "any.mindir: gives 2 classes, the settings say 3; --num_classes 2 fits"),
        ("no.onnx", (), "no.onnx: no such file"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, name, arguments, message):
    result = call_here("eval.py", "--checkpoint_path", name, *arguments, cwd=folder)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert message in result.stderr


@pytest.mark.parametrize("name", ["bad.onnx", "bad.mindir"])
def test_a_damaged_file_is_named(tmp_path, name):
    if name.endswith(".onnx"):
        reference("onnxruntime")
    (tmp_path / name).write_bytes(b"\x08\x07nothing to see here")
    for read in (open_exported, read_notes):
        with pytest.raises(UserError, match=rf"{name}: (onnxruntime cannot read it|is not a whole MINDIR file)"):
            read(tmp_path / name)


def test_without_onnxruntime_one_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.onnx").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"a\.onnx: needs the package onnxruntime: pip install onnxruntime"):
        open_exported(tmp_path / "a.onnx")


class TwoOutputs(nn.Cell):
    """Means and sums of the channels, as a tuple."""

    def construct(self, x):
        return x.mean((2, 3)), x.sum((2, 3, 1))


class MeanPixels(nn.Cell):
    """Means of the first two channels, as a map of one pixel."""

    def construct(self, x):
        return x[:, :2].mean((2, 3), True)


@pytest.mark.parametrize("batch", [2, None])
def test_mindir_file_with_several_outputs(tmp_path, batch):
    path = tmp_path / "two.mindir"
    write_mindspore(TwoOutputs(), path, "MINDIR", (3, 4, 6), batch, {})
    exported = open_exported(path)
    assert exported.input_shape == (batch, 3, 4, 6) and exported.output_shape == (batch, 3)
    images = normal(2, 3, 4, 6)
    means, sums = exported.run(images)
    assert np.allclose(means, images.mean((2, 3)), atol=1e-6) and np.allclose(sums, images.sum((1, 2, 3)), atol=1e-5)


def write_means(path, shape):
    """Write a foreign ONNX file of the channels' means: no notes, and an input of another name."""
    onnx, _ = reference("onnx"), reference("onnxruntime")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("GlobalAveragePool", ["pixels"], ["y"]), helper.make_node("Flatten", ["y"], ["z"])]
    ports = [helper.make_tensor_value_info(*port) for port in (("pixels", float32, shape), ("z", float32, shape[:2]))]
    graph = helper.make_graph(nodes, "means", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


@pytest.mark.parametrize(
    ("shape", "described", "input_size"),
    [((2, 3, 4, 6), "3x4x6, batch 2", (4, 6)), (("N", 3, "H", 6), "3x?x6, any batch", None)],
)
def test_a_foreign_onnx_file_is_taken_as_well(tmp_path, shape, described, input_size):
    path = tmp_path / "foreign.onnx"
    write_means(path, shape)
    signature = ExportSignature("image", (3, 4, 6), ("logits",), logit_classes=3, has_fixed_size=False)
    network, loaded = load_network(SimpleNamespace(export_signature=lambda: signature), path, "ema")
    assert loaded == f"{path}: ONNX file for images of {described}"
    assert isinstance(network, ExportedNetwork) and network.input_size == input_size
    assert read_notes(path) == {}
    x = normal(5, 3, 4, 6)
    assert np.abs(network(Tensor(x)).asnumpy() - x.mean((2, 3))).max() < 1e-6


def test_an_exported_network_fixes_the_size_of_segmentation(tmp_path):
    """Its two classes are the means of the first two channels, one pixel large."""
    path = tmp_path / "logits.mindir"
    write_mindspore(MeanPixels(), path, "MINDIR", (3, 4, 6), 1, {})
    data = DataSettings(mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0), base_size=(64, 64))
    network = ExportedNetwork(path)
    segment = Segmenter(network, 2, data, SegmentationEvaluationSettings())
    assert segment.input_sizes((50, 70)) == [(4, 6)] == [network.input_size]
    image = np.full((50, 70, 3), (10, 200, 30), np.uint8)
    assert segment(image).shape == (50, 70) and (segment(image) == 1).all()
