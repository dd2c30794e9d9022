"""MobileNets and self-attention as ONNX and TFLite, in onnxruntime and LiteRT, against the networks."""

import mindspore
import numpy as np
import pytest
from helpers import assert_close, normal, randomise, reference
from mindspore import Tensor

from src.classification.export_graph import describe_classifier
from src.detection.anchors import ANCHORS
from src.detection.export_graph import describe_detector
from src.detection.yolov3 import WithDecoding, YOLOv3
from src.export.export import export
from src.export.exported import open_exported
from src.export.folding import fold_batch_norm
from src.layers.attention import SelfAttention
from src.networks import create_network
from src.segmentation.deeplabv3 import DeepLabV3, FullSizeLogits
from src.segmentation.export_graph import describe_segmenter

TOLERANCE = 1e-4  # of the outputs' range, of which another image changes a tenth or more
NETWORKS = [f"mobilenetv2_{attention}1x" for attention in ("", "se_", "cbam_", "ca_", "dfc_")]
NETWORKS.append("mobilenetv3_large")
# ReLU6 has values on both sides of its ends; coordinate attention, as random as all others, would magnify rounding
GAINS = {"mobilenetv2_1x": 2, "mobilenetv2_ca_1x": 0.25}
ODD, EVEN = (65, 97), (64, 96)

onnx = reference("onnx")
onnxruntime = reference("onnxruntime")
interpreters = reference("ai_edge_litert.interpreter")


@pytest.fixture(autouse=True)
def pynative(graph_mode):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it


def build_network(name, **options):
    """A classifier, or a backbone with `features_only`, of random weights and batch normalisation."""
    return randomise(create_network(name, num_classes=20, dropout=0.0, **options), gain=GAINS.get(name, 1))


def describe_any(graph, image, network):
    """A classifier's logits or a backbone's maps."""
    if not network.features_only:
        return describe_classifier(graph, image, network)
    return {f"map_{index}": x for index, x in enumerate(graph.backbone(image, network))}


def outputs_of(cell, x) -> list:
    """What a cell gives, as arrays."""
    outputs = cell(Tensor(x))
    return [y.asnumpy() for y in (outputs if isinstance(outputs, tuple) else (outputs,))]


def start_onnx(describe, folded, size):
    """A function of images, any number of them, to the outputs by name."""
    from src.export.onnx_graph import build_onnx

    model = build_onnx(describe, folded, (3, *size)).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(None, {"image": x})))


def build_tflite(describe, folded, size, batch) -> bytes:
    from src.export import tflite_graph

    return tflite_graph.build_tflite(describe, folded, (3, *size), batch, False, {}, "float32")


def run_tflite(model, x):
    """The outputs by name, maps as (N, C, H, W); all operators must be XNNPACK's."""
    interpreter = interpreters.Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    assert_whole_graph_in_xnnpack(interpreter)
    images = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    outputs = interpreter.get_signature_runner("serving_default")(image=images)
    return {name: y.transpose(0, 3, 1, 2) if y.ndim == 4 else y for name, y in outputs.items()}


def assert_whole_graph_in_xnnpack(interpreter):
    """One delegate takes the image and gives every output: no operator stands before, behind or beside it."""
    operators = interpreter._get_ops_details()
    delegates = [node for node in operators if node["op_name"] == "DELEGATE"]
    produced = {int(tensor) for node in operators if node["op_name"] != "DELEGATE" for tensor in node["outputs"]}
    assert len(delegates) == 1
    assert set(map(int, delegates[0]["outputs"])) == {int(port["index"]) for port in interpreter.get_output_details()}
    assert not produced & set(map(int, delegates[0]["inputs"]))


def assert_files_equal(cell, describe, names, size):
    """Compare the outputs of an ONNX file, for two images and for one, and of a TFLite file with the cell's."""
    x = normal(2, 3, *size)
    expected = dict(zip(names, outputs_of(cell, x)))
    folded = fold_batch_norm(cell)
    run_onnx = start_onnx(describe, folded, size)
    single = {name: y[:1] for name, y in expected.items()}
    files = [(run_onnx(x), expected), (run_onnx(x[:1]), single)]
    files.append((run_tflite(build_tflite(describe, folded, size, 2), x), expected))
    for actual, wanted in files:
        assert actual.keys() == wanted.keys()
        for name in names:
            assert_close(actual[name], wanted[name], TOLERANCE)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [ODD, EVEN], ids=str)
def test_classifier(name, size):
    assert_files_equal(build_network(name), describe_any, ["logits"], size)


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_at_stride_8(name):
    network = build_network(name, output_stride=8, features_only=True, width=0.35)
    assert_files_equal(network, describe_any, [f"map_{index}" for index in range(4)], (47, 66))


@pytest.mark.parametrize(("size", "target"), [(ODD, "expressiveness"), (EVEN, "both"), ((75, 33), "both")], ids=str)
def test_self_attention(size, target):
    options = {"attention": "self_attention", "dfc_target": target, "dfc_blocks": (2, 5, 11, 15), "width": 0.5}
    network = build_network("ghostnetv2_1x", **options)
    modules = sum(isinstance(cell, SelfAttention) for _, cell in network.cells_and_names())
    assert modules == (8 if target == "both" else 4)
    assert_files_equal(network, describe_any, ["logits"], size)


@pytest.mark.parametrize("name", ["mobilenetv2_cbam_1x", "mobilenetv2_ca_1x"])
def test_weights_that_two_convolutions_share_are_stored_once(name):
    from src.export.onnx_graph import build_onnx

    folded = fold_batch_norm(build_network(name))
    size = sum(4 * parameter.size for parameter in folded.get_parameters())
    files = (
        build_tflite(describe_any, folded, EVEN, 1),
        build_onnx(describe_any, folded, (3, *EVEN)).SerializeToString(),
    )
    for model in files:
        assert size < len(model) < 1.02 * size


@pytest.mark.parametrize("name", ["mobilenetv2_ca_1x", "mobilenetv3_large"])
def test_detector(name):
    backbone = create_network(name, features_only=True, width=0.5)
    network = randomise(YOLOv3(backbone, 3, 16), gain=GAINS.get(name, 1))
    cell = WithDecoding(network, ANCHORS, 64).set_train(False)
    assert_files_equal(cell, describe_detector, ["boxes", "objectness", "class_scores"], (64, 64))


@pytest.mark.parametrize("name", ["mobilenetv2_cbam_1x", "mobilenetv3_large"])
def test_segmenter(name):
    backbone = create_network(name, features_only=True, width=0.5, output_stride=16)
    cell = randomise(FullSizeLogits(DeepLabV3(backbone, 5, 16, (2, 4, 6), 8, 0.1)))
    assert_files_equal(cell, describe_segmenter, ["logits"], ODD)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenetv2_ca_1x", {}),
        ("mobilenetv3_large", {}),
        ("ghostnetv2_1x", {"attention": "self_attention", "dfc_blocks": (5,)}),
    ],
    ids=str,
)
def test_mindir_file_loaded_back(tmp_path, name, options):
    network = build_network(name, width=0.35, **options)
    x = normal(1, 3, *ODD)
    (expected,) = outputs_of(network, x)
    export(network, tmp_path / "a.mindir", "MINDIR", (3, *ODD))
    (actual,) = open_exported(tmp_path / "a.mindir").run(x)
    assert_close(actual, expected, TOLERANCE)
