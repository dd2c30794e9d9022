"""YOLOv3: neck, head and decoding against PyTorch with the same weights, initial predictions, folding."""

import mindspore
import numpy as np
import pytest
from helpers import normal, randomise, reference
from mindspore import Tensor, nn

from src.detection.anchors import ANCHORS, STRIDES, place_anchors, scale_anchors
from src.detection.yolov3 import MAX_LOG_GROWTH, WithDecoding, YOLOv3, flatten_maps
from src.errors import UserError
from src.export.folding import fold_batch_norm
from src.ghostnetv2 import create_network


class Maps(nn.Cell):
    """A backbone that returns the maps it is given."""

    feature_channels = (7, 3, 5, 4)
    feature_strides = (4, 8, 16, 32)

    def construct(self, maps):
        return maps


def draw_maps(sizes, seed=0):
    """Maps of strides 8, 16 and 32 for `Maps`, with (height, width) from `sizes`."""
    return [normal(2, channels, *size, seed=seed) for channels, size in zip((3, 5, 4), sizes)]


def torch_outputs(network, maps):
    """What the neck and head of `network` make of `maps`, written as plain PyTorch functions."""
    torch = reference("torch")
    functional = torch.nn.functional
    weights = {p.name: torch.from_numpy(p.asnumpy().copy()) for p in network.get_parameters()}

    def layer(x, name):
        kernel = weights[f"{name}.conv.weight"]
        x = functional.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
        bn = [weights[f"{name}.bn.{key}"] for key in ("moving_mean", "moving_variance", "gamma", "beta")]
        return functional.leaky_relu(functional.batch_norm(x, *bn, eps=1e-5), 0.1)

    outputs, features = [], None
    for scale, x in enumerate(torch.from_numpy(x) for x in reversed(maps)):
        if features is not None:
            features = functional.interpolate(layer(features, f"laterals.{scale - 1}"), x.shape[2:])
            x = torch.cat((features, x), 1)
        for index, kernel_size in enumerate((1, 3, 1, 3, 1)):
            assert weights[f"blocks.{scale}.{index}.conv.weight"].shape[-1] == kernel_size
            x = layer(x, f"blocks.{scale}.{index}")
        features = x
        x = layer(x, f"heads.{scale}.0")
        outputs.append(functional.conv2d(x, weights[f"heads.{scale}.1.weight"], weights[f"heads.{scale}.1.bias"]))
    return [x.numpy() for x in outputs]


@pytest.mark.parametrize("sizes", [((8, 12), (4, 6), (2, 3)), ((5, 7), (3, 4), (2, 2))], ids=["even", "odd"])
def test_neck_and_head_equal_pytorch(sizes):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    maps = draw_maps(sizes)
    network = randomise(YOLOv3(Maps(), num_classes=6, channels=8), tuple(maps))
    expected = torch_outputs(network, maps)
    for ours, theirs in zip(network(tuple(map(Tensor, maps))), expected):
        assert ours.shape == theirs.shape
        assert np.abs(ours.asnumpy() - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_channels_are_those_of_the_recipe():
    network = YOLOv3(create_network("ghostnetv2_1x", features_only=True), num_classes=80, channels=96)
    shapes = {p.name: p.shape for p in network.get_parameters()}
    for scale, channels in enumerate((160, 96 + 112, 96 + 40)):
        assert shapes[f"blocks.{scale}.0.conv.weight"] == (96, channels, 1, 1)
        assert shapes[f"blocks.{scale}.1.conv.weight"] == (192, 96, 3, 3)
        assert shapes[f"blocks.{scale}.4.conv.weight"] == (96, 192, 1, 1)
        assert shapes[f"heads.{scale}.0.conv.weight"] == (96, 96, 3, 3)
        assert shapes[f"heads.{scale}.1.weight"] == (255, 96, 1, 1)
    assert shapes["laterals.1.conv.weight"] == (96, 96, 1, 1) and "laterals.2.conv.weight" not in shapes
    assert all(name.startswith(("backbone.", "blocks.", "heads.", "laterals.")) for name in shapes)


def test_first_predictions_are_few_objects_and_rare_classes():
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    network = YOLOv3(Maps(), num_classes=2, channels=96).set_train(False)
    maps = draw_maps(((76, 76), (38, 38), (19, 19)))  # of an image of 608x608
    raw = flatten_maps(network(tuple(map(Tensor, maps)))).asnumpy()
    probabilities = 1 / (1 + np.exp(-raw[..., 4:]))
    # 8 for each anchor of each scale
    assert probabilities[..., 0].sum(1) == pytest.approx([3 * 3 * 8] * 2, rel=0.05)
    assert probabilities[..., 1:].mean() == pytest.approx(0.01, rel=0.05)


def test_another_output_stride_is_refused():
    with pytest.raises(UserError, match=r"strides \(8, 16, 16\), YOLOv3 needs \(8, 16, 32\)"):
        YOLOv3(create_network("ghostnet_1x", features_only=True, output_stride=16), num_classes=2, channels=96)


def test_decoding_equals_loops():
    """Every place of every map by the formula, image of 40 pixels: 2, 3 and 5 cells a side."""
    image_size, anchors, generator = 40, scale_anchors(ANCHORS, 0.125), np.random.default_rng(0)
    maps = [3 * generator.standard_normal((2, 3 * 7, n, n)).astype(np.float32) for n in (2, 3, 5)]
    maps[0][0, 2, 0, 0] = 1000  # grows without limit, of the first anchor
    boxes, objectness, scores = (
        y.asnumpy() for y in WithDecoding(nn.Identity(), anchors, image_size)(tuple(map(Tensor, maps)))
    )
    assert boxes.shape == (2, 3 * (4 + 9 + 25), 4) and scores.shape == (2, 114, 2)
    place = 0
    for raw, stride, row in zip(maps, STRIDES, anchors):
        for y in range(raw.shape[2]):
            for x in range(raw.shape[3]):
                for index, (width, height) in enumerate(row):
                    values = raw[:, 7 * index : 7 * index + 7, y, x].astype(np.float64)
                    centre_x = (x + 1 / (1 + np.exp(-values[:, 0]))) * stride
                    centre_y = (y + 1 / (1 + np.exp(-values[:, 1]))) * stride
                    half_x = width / 2 * np.exp(np.minimum(values[:, 2], MAX_LOG_GROWTH))
                    half_y = height / 2 * np.exp(np.minimum(values[:, 3], MAX_LOG_GROWTH))
                    expected = np.stack((centre_x - half_x, centre_y - half_y, centre_x + half_x, centre_y + half_y), 1)
                    assert np.abs(boxes[:, place] - expected).max() < 1e-5 * np.abs(expected).max()
                    others = np.concatenate((objectness[:, place, None], scores[:, place]), 1)
                    assert np.abs(others - 1 / (1 + np.exp(-values[:, 4:]))).max() < 1e-6
                    place += 1


def test_folded_detector_gives_the_same_boxes():
    backbone = create_network("ghostnetv2_1x", features_only=True)
    network = randomise(YOLOv3(backbone, num_classes=2, channels=96))
    detector = WithDecoding(network, scale_anchors(ANCHORS, 0.2), 65).set_train(False)
    names = [p.name for p in detector.get_parameters()]
    assert names == [p.name for p in network.get_parameters()]
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    x = Tensor(normal(2, 3, 65, 65))
    expected = [y.asnumpy() for y in detector(x)]
    folded = fold_batch_norm(detector)
    assert not any(isinstance(cell, nn.BatchNorm2d) for _, cell in folded.cells_and_names())
    assert expected[0].shape[1] == len(place_anchors(ANCHORS, 65)[0]) == 3 * (9 + 25 + 81)
    for ours, theirs in zip(folded(x), expected):
        assert np.ptp(theirs) > 0.3
        assert np.abs(ours.asnumpy() - theirs).max() < 1e-4 * np.ptp(theirs)
