"""Inference on whole pictures: sizes, the resize of the logits, several scales, flips, exported files."""

import numpy as np
import pytest
from conftest import reference
from mindspore import Tensor

from src.errors import UserError
from src.inference import ExportedNetwork
from src.segmentation.inference import Segmenter, classify, round_size

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class Levels:
    """Stands in for a network: two classes at stride 8, dark and bright, and the shapes that it has seen."""

    def __init__(self):
        self.shapes = []

    def set_train(self, mode=True):
        return self

    def __call__(self, images):
        images = images.asnumpy()
        self.shapes.append(images.shape)
        bright = images.mean(1, keepdims=True)[:, :, 4::8, 4::8]
        return Tensor(np.concatenate((-bright, bright), 1))


def segmenter(network, base_size=(2048, 512), image_size=(64, 96), **options):
    return Segmenter(network, 2, MEAN, STD, base_size, image_size, **options)


@pytest.mark.parametrize("sizes", [[(9, 13)], [(9, 13), (5, 7)], [(64, 64)]], ids=str)
def test_classes_are_those_of_pytorchs_bilinear_resize(sizes, monkeypatch):
    torch = reference("torch")
    monkeypatch.setattr("src.segmentation.inference.STRIP_VALUES", 6 * 50 * 7)  # strips of 7 rows
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
    ("picture", "wanted"),
    [
        ((600, 800), (512, 672)),  # 682.7 is nearer to 672 than to 704
        ((800, 600), (672, 512)),
        ((300, 300), (512, 512)),
        ((100, 2000), (96, 2048)),  # the long side is the limit: 102.4 x 2048
        ((10, 2000), (64, 2048)),  # the network needs 33 pixels
    ],
)
def test_input_sizes(picture, wanted):
    assert segmenter(Levels()).input_sizes(picture) == [wanted]


def test_round_size():
    assert round_size((360, 480), 32, 360) == (360, 480)
    assert round_size((360, 481), 1, 360) == (360, 481)


def half_bright(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    return image


def test_a_picture_is_segmented_at_its_own_size():
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


def test_the_mirrored_picture_counts():
    class Left(Levels):
        def __call__(self, images):
            logits = np.zeros((1, 2, 8, 8), np.float32)
            logits[:, 0, :, :4], logits[:, 1, :, 4:] = 1, 2
            return Tensor(logits)

    image = half_bright(64, 64)
    assert np.array_equal(segmenter(Left())(image)[0, [0, -1]], (0, 1))
    assert (segmenter(Left(), flip=True)(image) == 1).all()  # each side once class 0 at 1, once class 1 at 2


class FixedFile(ExportedNetwork):
    """An exported file without the file."""

    def __init__(self):
        self.shapes = []

    __call__ = Levels.__call__


def test_an_exported_file_sees_its_own_size():
    network = FixedFile()
    image = half_bright(100, 60)
    assert np.array_equal(segmenter(network)(image), image[:, :, 0] // 255)
    assert network.shapes == [(1, 3, 64, 96)]
    with pytest.raises(UserError, match=r"evaluation.scales: an exported file has one input size"):
        segmenter(network, scales=(1.0, 2.0))


def test_a_network_for_other_classes_is_named():
    segment = Segmenter(Levels(), 3, MEAN, STD, (96, 64), (64, 64))
    with pytest.raises(UserError, match="the network gives 2 classes, the settings say 3"):
        segment(half_bright(64, 64))
