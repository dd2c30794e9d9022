"""ONNX files of int8 and float16: what they store, and that their outputs stay near those of the network."""

import shutil

import mindspore
import numpy as np
import pytest
from helpers import assert_close, normal, randomise, reference
from mindspore import Tensor

from src.classification.export_graph import describe_classifier
from src.detection.anchors import ANCHORS
from src.detection.export_graph import describe_detector
from src.detection.yolov3 import WithDecoding, YOLOv3
from src.export.exported import open_exported
from src.export.folding import fold_batch_norm
from src.networks import create_network
from src.segmentation.deeplabv3 import DeepLabV3, FullSizeLogits
from src.segmentation.export_graph import describe_segmenter

onnx = reference("onnx")
onnxruntime = reference("onnxruntime")
SIZE = (65, 97)  # which needs resizes by sizes


@pytest.fixture(autouse=True)
def pynative(graph_mode):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it


def backbone(**options):
    return create_network("ghostnetv2_1x", width=0.5, **options)


def build(network, in_file=lambda network: network):
    """What the file of a network with random weights computes, and its folded copy."""
    cell = in_file(randomise(network)).set_train(False)
    return cell, fold_batch_norm(cell)


def write(describe, folded, path, size, weights_type="float32", batch=None):
    from src.export.onnx_file import write_onnx

    write_onnx(describe, folded, path, (3, *size), batch, False, {"settings": "a: 1"}, weights_type)
    return path


def quantize(path, batches):
    from src.export.onnx_int8 import quantize as quantize_file

    quantize_file(path, batches)
    return path


def arrays_of(model):
    return {array.name: onnx.numpy_helper.to_array(array) for array in model.graph.initializer}


def assert_near(actual, expected, mean=0.05):
    """Compare by the mean difference, a share of the range; none would be float32."""
    assert actual.shape == expected.shape
    assert 1e-5 < np.abs(actual - expected).mean() / np.ptp(expected) < mean


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A network, its float32 file and the quantized one."""
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    cell, folded = build(backbone(num_classes=7, dropout=0.0))
    folder = tmp_path_factory.mktemp("int8")
    plain = write(describe_classifier, folded, folder / "float32.onnx", SIZE)
    shutil.copy(plain, folder / "int8.onnx")
    return cell, plain, quantize(folder / "int8.onnx", normal(4, 3, 3, *SIZE, seed=1))


def test_any_batch_is_near_the_network(classifier, capfd):
    cell, _, path = classifier
    exported, x = open_exported(path), normal(5, 3, *SIZE)
    assert exported.input_shape == (None, 3, *SIZE) and exported.notes == {"settings": "a: 1"}
    expected = cell(Tensor(x)).asnumpy()
    for count in (1, 5):
        assert_near(exported.run(x[:count])[0], expected[:count])
    assert capfd.readouterr().err == ""


def test_weights_are_int8_per_channel_but_for_the_first_convolution(classifier):
    _, plain, path = classifier
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    expected, stored = arrays_of(onnx.load(str(plain))), arrays_of(model)
    convolutions = [node for node in onnx.load(str(plain)).graph.node if node.op_type == "Conv"]
    assert np.array_equal(stored["conv_stem.weight"], expected["conv_stem.weight"])
    for node in convolutions[1:]:
        name = node.input[1]
        weight, scale = stored[f"{name}_quantized"], stored[f"{name}_scale"]
        assert weight.dtype == np.int8 and scale.shape == weight.shape[:1] and not stored[f"{name}_zero_point"].any()
        error = np.abs(weight * scale.reshape(-1, 1, 1, 1) - expected[name])
        assert (error <= 0.5001 * scale.reshape(-1, 1, 1, 1)).all()
    assert path.stat().st_size < 0.45 * plain.stat().st_size


def test_resizes_by_sizes_say_all_of_them_and_give_the_same(classifier, tmp_path):
    from src.export.onnx_int8 import resize_all_axes

    _, plain, _ = classifier
    model = onnx.load(str(plain))
    assert any(len(node.input) == 4 for node in model.graph.node if node.op_type == "Resize")
    resize_all_axes(model.graph)
    onnx.checker.check_model(model, full_check=True)
    path, x = tmp_path / "all.onnx", normal(2, 3, *SIZE)
    onnx.save(model, str(path))
    assert_close(open_exported(path).run(x)[0], open_exported(plain).run(x)[0], 1e-6)


def test_a_graph_without_resizes_by_sizes_stays_as_it_is(tmp_path):
    from src.export.onnx_int8 import resize_all_axes

    _, folded = build(create_network("ghostnet_1x", num_classes=3, width=0.25))
    model = onnx.load(str(write(describe_classifier, folded, tmp_path / "a.onnx", (64, 64))))
    before = model.SerializeToString()
    resize_all_axes(model.graph)
    assert model.SerializeToString() == before


@pytest.mark.long
def test_detector_is_near_and_its_boxes_are_decoded_in_float32(tmp_path):
    size = 64
    network, x = YOLOv3(backbone(features_only=True), 3, 16), normal(2, 3, size, size)
    cell, folded = build(network, lambda network: WithDecoding(network, ANCHORS, size))
    path = write(describe_detector, folded, tmp_path / "a.onnx", (size, size), batch=2)
    quantize(path, np.stack((x, normal(2, 3, size, size, seed=1))))
    expected = [y.asnumpy() for y in cell(Tensor(x))]
    for ours, theirs in zip(open_exported(path).run(x), expected):
        assert_near(ours, theirs)
    nodes = onnx.load(str(path)).graph.node
    last = next(index for index, node in enumerate(nodes) if node.name == "raw")
    assert not any(node.op_type == "QuantizeLinear" for node in nodes[last:])


@pytest.mark.parametrize("output_stride", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_segmenter_is_near(tmp_path, output_stride):
    features = backbone(features_only=True, output_stride=output_stride)
    cell, folded = build(FullSizeLogits(DeepLabV3(features, 5, 16, (2, 4, 6), 8, 0.1)))
    path = write(describe_segmenter, folded, tmp_path / "a.onnx", SIZE)
    x = normal(2, 3, *SIZE)
    quantize(path, np.stack((x, normal(2, 3, *SIZE, seed=1))))
    for count in (1, 2):
        assert_near(open_exported(path).run(x[:count])[0], cell(Tensor(x[:count])).asnumpy())


def test_float16_halves_the_file_and_keeps_biases(classifier, tmp_path):
    cell, plain, _ = classifier
    path = write(describe_classifier, fold_batch_norm(cell), tmp_path / "a.onnx", SIZE, "float16")
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    expected, stored = arrays_of(onnx.load(str(plain))), arrays_of(model)
    assert np.array_equal(stored["conv_stem.weight.float16"], expected["conv_stem.weight"].astype(np.float16))
    assert np.array_equal(stored["classifier.bias"], expected["classifier.bias"])
    assert not any(array.dtype == np.float32 and array.ndim > 2 for array in stored.values())
    assert 0.49 < path.stat().st_size / plain.stat().st_size < 0.56
    x = normal(3, 3, *SIZE)
    assert_close(open_exported(path).run(x)[0], cell(Tensor(x)).asnumpy(), 5e-3)
