"""The ONNX graph in onnxruntime, against timm's PyTorch models and against our own network."""

import mindspore
import numpy as np
import pytest
from dfc_options import SIZES, choices, combinations
from helpers import assert_close, copy_weights, normal, random_timm, randomise, reference
from mindspore import Tensor

from src.architecture import VARIANTS
from src.classification.export_graph import describe_classifier
from src.export.folding import fold_batch_norm
from src.networks import create_network
from src.weights.names import TIMM_NAMES

onnx = reference("onnx")
onnxruntime = reference("onnxruntime")


@pytest.fixture(autouse=True)
def pynative(graph_mode):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it


def build(folded, size, batch=None, **options):
    from src.export.onnx_graph import build_onnx

    def describe(graph, image, network):
        if not network.features_only:
            return describe_classifier(graph, image, network)
        return {f"map_{index}": x for index, x in enumerate(graph.backbone(image, network))}

    return build_onnx(describe, folded, (3, *size), batch, **options)


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": x})


def assert_equals_network(size=(65, 97), name="ghostnetv2_nose_1x", gain=1, **options):
    network = randomise(create_network(name, num_classes=20, dropout=0.0, **options), gain=gain)
    x = normal(2, 3, *size)
    expected = network(Tensor(x))
    expected = expected if isinstance(expected, tuple) else (expected,)
    actual = run(build(fold_batch_norm(network), size), x)
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected):
        assert_close(ours, theirs.asnumpy())


def timm_pair(name):
    """A function of images to timm's logits, and our network of the same weights, folded."""
    torch = reference("torch")
    model = random_timm(TIMM_NAMES[name], drop_rate=0.0)
    network = copy_weights(model, create_network(name, dropout=0.0))

    def expected(x):
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()

    return expected, fold_batch_norm(network)


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_logits_equal_timm(name):
    expected, network = timm_pair(name)
    x = normal(2, 3, 224, 224)
    logits = expected(x)
    model = build(network, (224, 224))
    onnx.checker.check_model(model, full_check=True)
    assert_close(run(model, x)[0], logits)
    assert_close(run(model, x[:1])[0], logits[:1])
    softmax = run(build(network, (224, 224), 1, softmax=True), x[:1])[0]
    powers = np.exp(logits[:1].astype(np.float64))
    assert_close(softmax, powers / powers.sum())


def test_any_size_equals_timm():
    expected, network = timm_pair("ghostnetv2_1x")
    for size in ((33, 33), (47, 101), (227, 227), (192, 256), (320, 300)):
        x = normal(1, 3, *size)
        assert_close(run(build(network, size, 1), x)[0], expected(x))


def test_graph_has_nothing_to_fold_and_every_shape():
    network = fold_batch_norm(create_network("ghostnetv2_1x", num_classes=7))
    for batch in (None, 2):
        graph = build(network, (224, 224), batch).graph
        operations = {node.op_type for node in graph.node}
        assert not operations & {"BatchNormalization", "Slice", "Pad", "Shape"}
        shapes = {info.name: info.type.tensor_type.shape.dim for info in (*graph.value_info, *graph.output)}
        assert shapes.keys() == {name for node in graph.node for name in node.output}
        first = "dim_param" if batch is None else "dim_value"
        assert {getattr(dims[0], first) for dims in shapes.values()} == {"N" if batch is None else 2}
        assert all(dim.dim_value > 0 for dims in shapes.values() for dim in dims[1:])
        assert (graph.input[0].name, graph.output[0].name) == ("image", "logits")


def test_shapes_are_those_that_onnx_infers():
    graph = build(fold_batch_norm(create_network("ghostnetv2_1x", num_classes=7)), (65, 97), 2).graph
    noted = {info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in graph.value_info}
    del graph.value_info[:]
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    assert len(inferred) == len(noted)
    for info in inferred:
        assert noted[info.name] == [d.dim_value for d in info.type.tensor_type.shape.dim], info.name


@pytest.mark.parametrize("options", [{}, {"features_only": True, "output_stride": 16}], ids=str)
def test_a_large_batch_passes_the_first_blocks_in_chunks(options, monkeypatch):
    network = randomise(create_network("ghostnetv2_1x", num_classes=20, dropout=0.0, **options))
    size, x = (33, 65), normal(5, 3, 33, 65)
    monkeypatch.setattr("src.export.onnx_backbone.CHUNK_PIXELS", 2 * 33 * 65)
    model = build(fold_batch_norm(network), size, 5)
    shapes = {info.name: info.type.tensor_type.shape.dim[0].dim_value for info in model.graph.value_info}
    stems = [shapes[node.output[0]] for node in model.graph.node if "conv_stem" in node.name and node.op_type == "Conv"]
    assert stems == [2, 2, 1]
    expected = network(Tensor(x))
    for ours, theirs in zip(run(model, x), expected if isinstance(expected, tuple) else (expected,)):
        assert_close(ours, theirs.asnumpy())


def test_the_layout_depends_on_the_batch_only_where_it_may(monkeypatch):
    monkeypatch.setattr("src.export.onnx_backbone.CHUNK_PIXELS", 1)
    network = fold_batch_norm(create_network("ghostnet_1x", num_classes=7))
    for may, count in ((False, 1), (True, 3)):
        batches = [build(network, (33, 33), batch, by_batch=may).graph.node for batch in (None, 1, 3)]
        assert len({tuple(node.op_type for node in nodes) for nodes in batches}) == count


def test_a_fixed_batch_is_fixed():
    model = build(fold_batch_norm(create_network("ghostnet_1x", num_classes=7)), (33, 33), 2)
    assert run(model, normal(2, 3, 33, 33))[0].shape == (2, 7)
    with pytest.raises(Exception, match="Got: 3 Expected: 2"):
        run(model, normal(3, 3, 33, 33))


@pytest.mark.parametrize(
    "options",
    [
        {"dfc_up_sampling": "bilinear", "dfc_down_sampling": "max_pool"},
        {"dfc_up_sampling": "bilinear_align_corners", "dfc_gate_position": "after_up_sampling"},
        {"dfc_up_sampling": "bicubic", "dfc_down_sampling": "bilinear", "dfc_gate": "hard_sigmoid"},
        {"dfc_target": "both", "dfc_kernel_size": 7},
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
@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.15, 2.0, 2.5])
def test_other_widths(width):
    assert_equals_network((64, 64), "ghostnetv2_1x", width=width)
