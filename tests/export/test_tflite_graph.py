"""The TFLite graph in LiteRT, against timm's PyTorch models and against our own networks."""

import mindspore
import numpy as np
import pytest
from dfc_options import SIZES, choices, combinations
from helpers import assert_close, copy_weights, normal, random_timm, randomise, reference
from mindspore import Tensor

from src.architecture import VARIANTS
from src.classification.export_graph import describe_classifier
from src.detection.anchors import ANCHORS
from src.detection.export_graph import describe_detector
from src.detection.yolov3 import WithDecoding, YOLOv3
from src.export.folding import fold_batch_norm
from src.networks import create_network
from src.segmentation.deeplabv3 import DeepLabV3, FullSizeLogits
from src.segmentation.export_graph import describe_segmenter
from src.weights.names import TIMM_NAMES

interpreters = reference("ai_edge_litert.interpreter")


@pytest.fixture(autouse=True)
def pynative(graph_mode):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it


def build(describe, network, size, batch=1, softmax=False, weights_type="float32"):
    from src.export.tflite_graph import build_tflite

    return build_tflite(describe, fold_batch_norm(network), (3, *size), batch, softmax, {}, weights_type)


def start(model, **options):
    interpreter = interpreters.Interpreter(model_content=model, num_threads=1, **options)
    interpreter.allocate_tensors()
    return interpreter


def run(model, x):
    """The outputs, maps as (N, C, H, W), of the only signature."""
    outputs = start(model).get_signature_runner("serving_default")(image=np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    return {name: y.transpose(0, 3, 1, 2) if y.ndim == 4 else y for name, y in outputs.items()}


def assert_outputs(actual, expected):
    """Compare {name: array} with the tensors of a cell, in any order of the names that the shapes allow."""
    expected = [y.asnumpy() for y in (expected if isinstance(expected, tuple) else (expected,))]
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected):
        assert_close(ours, theirs)


def describe_maps(graph, image, network):
    """All maps of a backbone."""
    return {f"map_{index}": x for index, x in enumerate(graph.backbone(image, network))}


def assert_equals_network(size=(65, 97), name="ghostnetv2_nose_1x", batch=1, gain=1, **options):
    network = randomise(create_network(name, num_classes=20, dropout=0.0, **options), gain=gain)
    x = normal(batch, 3, *size)
    expected = network(Tensor(x))
    describe = describe_maps if network.features_only else describe_classifier
    model = build(describe, network, size, batch)
    assert_whole_graph_in_xnnpack(model)
    actual = run(model, x)
    names = [f"map_{index}" for index in range(4)] if network.features_only else ["logits"]
    assert_outputs([actual[name] for name in names], expected)


def assert_whole_graph_in_xnnpack(model):
    """One delegate takes the image and gives every output: no operator stands before, behind or beside it."""
    interpreter = start(model)
    operators = interpreter._get_ops_details()
    delegates = [node for node in operators if node["op_name"] == "DELEGATE"]
    produced = {int(tensor) for node in operators if node["op_name"] != "DELEGATE" for tensor in node["outputs"]}
    outputs = {int(port["index"]) for port in interpreter.get_output_details()}
    assert len(delegates) == 1
    assert set(map(int, delegates[0]["outputs"])) == outputs
    assert not produced & set(map(int, delegates[0]["inputs"]))


def timm_pair(name):
    """A function of images to timm's logits, and our network of the same weights."""
    torch = reference("torch")
    model = random_timm(TIMM_NAMES[name], drop_rate=0.0)
    network = copy_weights(model, create_network(name, dropout=0.0))

    def expected(x):
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()

    return expected, network


def round_weights(network):
    """A folded copy with the weights, not the biases, in steps of float16."""
    folded = fold_batch_norm(network)
    for parameter in folded.get_parameters():
        if parameter.ndim > 1:
            parameter.set_data(Tensor(parameter.asnumpy().astype(np.float16).astype(np.float32)))
    return folded


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_logits_equal_timm(name):
    expected, network = timm_pair(name)
    x = normal(1, 3, 224, 224)
    logits = expected(x)
    model = build(describe_classifier, network, (224, 224))
    assert_whole_graph_in_xnnpack(model)
    assert_close(run(model, x)["logits"], logits)
    half = build(describe_classifier, network, (224, 224), weights_type="float16")
    assert_whole_graph_in_xnnpack(half)
    assert 0.49 < len(half) / len(model) < 0.53
    assert_close(run(half, x)["logits"], round_weights(network)(Tensor(x)).asnumpy())


def test_any_size_equals_timm():
    expected, network = timm_pair("ghostnetv2_1x")
    for size in ((33, 33), (47, 101), (227, 227), (192, 256)):
        x = normal(1, 3, *size)
        assert_close(run(build(describe_classifier, network, size), x)["logits"], expected(x))


def test_softmax_of_three_images_with_and_without_xnnpack():
    network = randomise(create_network("ghostnetv2_1x", num_classes=7, dropout=0.0))
    x = normal(3, 3, 65, 97)
    powers = np.exp(network(Tensor(x)).asnumpy().astype(np.float64))
    expected = powers / powers.sum(axis=1, keepdims=True)
    model = build(describe_classifier, network, (65, 97), 3, softmax=True)
    assert_close(run(model, x)["probabilities"], expected)
    plain = start(model, experimental_op_resolver_type=interpreters.OpResolverType.BUILTIN_REF)
    plain.set_tensor(plain.get_input_details()[0]["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    plain.invoke()
    assert_close(plain.get_tensor(plain.get_output_details()[0]["index"]), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"dfc_up_sampling": "bilinear", "dfc_down_sampling": "max_pool"},
        {"dfc_up_sampling": "bilinear_align_corners", "dfc_gate_position": "after_up_sampling", "batch": 2},
        {"dfc_up_sampling": "bicubic", "dfc_down_sampling": "bilinear", "dfc_gate": "hard_sigmoid", "batch": 2},
        {"dfc_target": "both", "dfc_kernel_size": 7, "batch": 2},
        {"dfc_target": "capacity", "dfc_kernel_size": 3, "dfc_gate_position": "after_up_sampling"},
        {"dfc_blocks": (0, 1, 3, 5, 15), "dfc_gate": "none"},
        {"dfc_kernel_size": (4, (6, 3), 5), "dfc_gate": "clip", "dfc_axes": "square"},
        {"dfc_axes": "rows", "dfc_gate": "relu", "dfc_up_sampling": "bicubic", "dfc_target": "both"},
        {"dfc_axes": "columns", "dfc_kernel_size": "full", "dfc_stages": (8, 32)},
        {"dfc_down_sampling": "none", "dfc_gate": "clip", "dfc_up_sampling": "bilinear"},
        {"name": "ghostnetv2_1x", "output_stride": 16},
        {"name": "ghostnetv2_1x", "output_stride": 8, "features_only": True},
        {"name": "ghostnetv2_1x", "features_only": True, "width": 0.5},
    ],
    ids=str,
)
def test_options_equal_the_network(options):
    assert_equals_network(**options)


@pytest.mark.parametrize("size", [64, 160])
def test_detector(size):
    network = randomise(YOLOv3(create_network("ghostnetv2_1x", features_only=True, width=0.5), 3, 16))
    cell, x = WithDecoding(network, ANCHORS, size).set_train(False), normal(2, 3, size, size)
    expected = dict(zip(("boxes", "objectness", "class_scores"), cell(Tensor(x))))
    model = build(describe_detector, cell, (size, size), 2)
    actual = run(model, x)
    assert actual.keys() == expected.keys()
    for name in expected:
        assert_close(actual[name], expected[name].asnumpy())
    assert_whole_graph_in_xnnpack(model)


@pytest.mark.parametrize(("output_stride", "size"), [(8, (64, 96)), (16, (65, 97)), (32, (47, 66))])
def test_segmenter(output_stride, size):
    backbone = create_network("ghostnetv2_1x", features_only=True, width=0.5, output_stride=output_stride)
    cell = randomise(FullSizeLogits(DeepLabV3(backbone, 5, 16, (2, 4, 6), 8, 0.1)))
    x = normal(2, 3, *size)
    model = build(describe_segmenter, cell, size, 2)
    assert_close(run(model, x)["logits"], cell(Tensor(x)).asnumpy())
    softmax = run(build(describe_segmenter, cell, size, 2, softmax=True), x)["probabilities"]
    assert np.abs(softmax.sum(1) - 1).max() < 1e-5
    assert_whole_graph_in_xnnpack(model)


def test_large_weights_are_split(monkeypatch):
    """As the quantizer wants it, see `LARGEST_WEIGHT`."""
    from src.export import tflite_graph

    monkeypatch.setattr(tflite_graph, "LARGEST_WEIGHT", 2**20)
    assert_equals_network((40, 49), "ghostnetv2_1x", width=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("up_sampling", choices("up_sampling"))
@pytest.mark.parametrize("down_sampling", choices("down_sampling"))
def test_all_combinations_of_dfc_options(up_sampling, down_sampling):
    for size, options in combinations(up_sampling, down_sampling):
        # with features of 1 or more, gates without an upper end would let them grow from block to block
        assert_equals_network(size, gain=0.5, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("size", SIZES)
def test_every_variant_at_many_sizes(name, size):
    assert_equals_network(size, name)
    assert_equals_network(size, name, output_stride=16, features_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("width", [0.35, 0.75, 1.15, 2.0])
def test_other_widths(width):
    assert_equals_network((64, 64), "ghostnetv2_1x", width=width)
