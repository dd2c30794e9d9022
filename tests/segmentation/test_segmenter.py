"""Inference on whole images: sizes, the resize of the logits, several scales, flips, exported files."""

import numpy as np
import pytest
from helpers import reference

from src.errors import UserError
from src.segmentation.segmenter import Segmenter, classify, round_size
from src.segmentation.settings import DataSettings, SegmentationEvaluationSettings


class Levels:
    """Stands in for a network: two classes at stride 8, dark and bright, and the shapes that it has seen."""

    input_size = None

    def __init__(self):
        self.shapes = []

    def __call__(self, images):
        self.shapes.append(images.shape)
        bright = images.mean(1, keepdims=True)[:, :, 4::8, 4::8]
        return [np.concatenate((-bright, bright), 1)]


def segmenter(network, base_size=(2048, 512), num_classes=2, **evaluation):
    data = DataSettings(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), base_size=base_size)
    return Segmenter(network, num_classes, data, SegmentationEvaluationSettings(**evaluation))


@pytest.mark.parametrize("sizes", [[(9, 13)], [(9, 13), (5, 7)], [(64, 64)]], ids=str)
def test_classes_are_those_of_pytorchs_bilinear_resize(sizes, monkeypatch):
    torch = reference("torch")
    monkeypatch.setattr("src.segmentation.segmenter.STRIP_VALUES", 6 * 50 * 7)  # strips of 7 rows
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((6, *size)).astype(np.float32) for size in sizes]
    full = [
        torch.nn.functional.interpolate(torch.from_numpy(values)[None], (33, 50), mode="bilinear", align_corners=False)
        for values in maps
    ]
    mean = sum(torch.softmax(values, 1) for values in full)[0].numpy()
    best = np.sort(mean, 0)
    decided = best[-1] - best[-2] > 1e-5
    assert decided.mean() > 0.99
    classes = classify(maps, (33, 50))
    assert classes.dtype == np.uint8 and classes.shape == (33, 50)
    assert np.array_equal(classes[decided], mean.argmax(0)[decided])


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((600, 800), (512, 672)),  # 682.7 is nearer to 672 than to 704
        ((800, 600), (672, 512)),
        ((300, 300), (512, 512)),
        ((100, 2000), (96, 2048)),  # the long side is the limit: 102.4 x 2048
        ((10, 2000), (64, 2048)),  # the network needs 33 pixels
    ],
)
def test_input_sizes(size, wanted):
    assert segmenter(Levels()).input_sizes(size) == [wanted]


def test_round_size():
    assert round_size((360, 480), 32, 360) == (360, 480)
    assert round_size((360, 481), 1, 360) == (360, 481)


def half_bright(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    return image


def test_an_image_is_segmented_at_its_own_size():
    network = Levels()
    segment = segmenter(network, (128, 64))
    for height, width in ((48, 72), (120, 60)):
        classes = segment(half_bright(height, width))
        assert classes.shape == (height, width)
        assert np.array_equal(classes, half_bright(height, width)[:, :, 0] // 255)
    assert network.shapes == [(1, 3, 64, 96), (1, 3, 128, 64)]
    assert segment(half_bright(48, 72), (10, 20)).shape == (10, 20)


def test_scales_and_flip_are_averaged_in_place():
    network = Levels()
    segment = segmenter(network, (96, 64), scales=(0.75, 1.0, 2.0), flip=True)
    classes = segment(half_bright(64, 96))
    assert np.array_equal(classes, half_bright(64, 96)[:, :, 0] // 255)
    # twice each: as it is, and mirrored
    assert network.shapes == [(1, 3, *size) for size in ((48, 64), (64, 96), (128, 192)) for _ in range(2)]


def test_the_mirrored_image_counts():
    class Left(Levels):
        def __call__(self, images):
            logits = np.zeros((1, 2, 8, 8), np.float32)
            logits[:, 0, :, :4], logits[:, 1, :, 4:] = 1, 2
            return [logits]

    image = half_bright(64, 64)
    assert np.array_equal(segmenter(Left())(image)[0, [0, -1]], (0, 1))
    assert (segmenter(Left(), flip=True)(image) == 1).all()  # each side once class 0 at 1, once class 1 at 2


class Fixed(Levels):
    """Made for one size, as an exported file may be."""

    input_size = (64, 96)


def test_a_network_with_an_input_size_sees_images_of_that_size():
    network, image = Fixed(), half_bright(100, 60)
    assert np.array_equal(segmenter(network, (96, 64))(image), image[:, :, 0] // 255)
    assert network.shapes == [(1, 3, 64, 96)]
    segmenter(network, flip=True)(image)
    assert network.shapes == [(1, 3, 64, 96)] * 3
    with pytest.raises(UserError, match=r"evaluation.scales: an exported file has one input size, \[1.0, 2.0\] needs"):
        segmenter(network, scales=(1.0, 2.0))


def test_a_network_whose_input_size_is_open_sees_images_of_any():
    network = Levels()
    network.input_size = None
    segmenter(network, (96, 64), scales=(1.0, 2.0))(half_bright(64, 96))
    assert network.shapes == [(1, 3, 64, 96), (1, 3, 128, 192)]


def test_a_network_for_other_classes_is_named():
    segment = segmenter(Levels(), (96, 64), num_classes=3)
    with pytest.raises(UserError, match="the network gives 2 classes, the settings say 3"):
        segment(half_bright(64, 64))
