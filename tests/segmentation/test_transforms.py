"""Augmentation: labels move exactly with the pixels, as an image shows whose colours are its mask's."""

import colorsys

import numpy as np
import pytest

from src.segmentation.loss import IGNORED
from src.segmentation.settings import AugmentSettings
from src.segmentation.transforms import SegmentationAugmentation, draw_crop, fit_size, pad, resize_image, resize_labels

COLOURS = np.array([(230, 20, 10), (10, 230, 20), (20, 10, 230), (220, 220, 220)], np.uint8)  # red, green, blue, grey
FILL = (124, 116, 104)


def drawn(height=90, width=120):
    """An image of four flat areas with a slanted, a round and a straight border, and its mask."""
    rows, columns = np.mgrid[:height, :width]
    labels = (columns + rows // 2 > width * 2 // 3).astype(np.uint8)
    labels[(rows - height // 3) ** 2 + (columns - width // 3) ** 2 < (height // 5) ** 2] = 2
    labels[height * 3 // 4 :, : width // 4] = 3
    return COLOURS[labels], labels


def agreement(image, labels):
    """Share of the labelled pixels whose label is that of their colour, also a distorted one; and their number."""
    image, counted = image.astype(int), labels != IGNORED
    found = np.where(image.max(2) - image.min(2) < 35, 3, image.argmax(2))
    return (found == labels)[counted].mean(), int(counted.sum())


@pytest.mark.parametrize("size", [(180, 240), (45, 60), (131, 77)])
def test_resize_keeps_labels_on_their_pixels(size):
    image, labels = drawn()
    image, labels = resize_image(image, size), resize_labels(labels, size)
    assert image.shape == (*size, 3) and labels.shape == size
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert agreement(image, labels)[0] > 0.97  # at the borders colours mix


def test_resize_moves_a_mask_by_less_than_half_a_pixel():
    """A border at the middle stays in the middle, to the pixel: `nearest` without an offset."""
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 30:] = 1
    labels[20:] += 2
    doubled = resize_labels(labels, (80, 120))
    assert np.array_equal(doubled, labels.repeat(2, 0).repeat(2, 1))
    halved = resize_labels(labels, (20, 30))
    assert np.array_equal(halved, labels[1::2, 1::2])


def test_fit_size():
    assert fit_size((600, 800), 2048, 512) == (512, 683)
    assert fit_size((800, 600), 2048, 512) == (683, 512)
    assert fit_size((100, 1000), 2048, 512) == (205, 2048)  # the long side is the limit
    assert fit_size((2, 1000), 100, 50) == (1, 100)


def test_a_crop_without_a_class_of_three_quarters_is_found():
    labels = np.zeros((60, 100), np.uint8)
    labels[:, 70:] = 1
    for seed in range(20):
        top, left = draw_crop(labels, (60, 40), 0.75, np.random.default_rng(seed))
        share = (labels[:, left : left + 40] == 1).mean()
        assert top == 0 and 0.25 <= share <= 0.75, seed
    # without the rule, plain crops come too
    lefts = [draw_crop(labels, (60, 40), 1.0, np.random.default_rng(seed))[1] for seed in range(20)]
    assert any(left < 40 for left in lefts)


def test_ignored_pixels_do_not_count_for_a_crop():
    labels = np.full((20, 40), IGNORED, np.uint8)
    labels[:, :2], labels[:, 2:4] = 0, 1
    assert draw_crop(labels, (20, 40), 0.75, np.random.default_rng(0)) == (0, 0)
    draws = {draw_crop(labels, (20, 10), 0.75, np.random.default_rng(seed))[1] for seed in range(40)}
    assert sum(left <= 2 for left in draws) >= 2  # crops of one class or none were drawn again


def test_one_class_only_ends_after_ten_draws():
    class Counting:
        calls = 0

        def integers(self, low, high):
            self.calls += 1
            return 0

    generator = Counting()
    assert draw_crop(np.zeros((8, 8), np.uint8), (4, 4), 0.75, generator) == (0, 0)
    assert generator.calls == 20  # two a draw


def test_pad():
    image, labels = drawn(6, 8)
    padded_image, padded_labels = pad(image, labels, (7, 11), FILL)
    assert np.array_equal(padded_image[:6, :8], image) and np.array_equal(padded_labels[:6, :8], labels)
    assert (padded_labels[6:] == IGNORED).all() and (padded_labels[:, 8:] == IGNORED).all()
    assert (padded_image[6:] == FILL).all() and (padded_image[:, 8:] == FILL).all()


def build_square(**settings):
    """The augmentation of an image of 40x40 pixels at its own size."""
    return SegmentationAugmentation((40, 40), (40, 40), FILL, AugmentSettings(ratio=(1.0, 1.0), **settings))


def test_flip_is_of_both():
    image, labels = drawn(40, 40)
    transform = build_square(flip=1.0, photometric=False)
    flipped, flipped_labels = transform(image, labels, np.random.default_rng(0))
    assert np.array_equal(flipped, image[:, ::-1]) and np.array_equal(flipped_labels, labels[:, ::-1])


def test_the_hue_turns_by_up_to_36_degrees():
    """MMSegmentation's 18 units of OpenCV's 8-bit hue; red stays between orange and pink."""
    image, labels = np.full((40, 40, 3), (100, 0, 0), np.uint8), np.zeros((40, 40), np.uint8)
    transform = build_square(flip=0.0)
    turns = []
    for seed in range(300):
        distorted, _ = transform(image, labels, np.random.default_rng(seed))
        hue = colorsys.rgb_to_hsv(*distorted[0, 0] / 255)[0] * 360
        turns.append((hue + 180) % 360 - 180)
    assert 30 < max(turns) < 37 and -37 < min(turns) < -30


def test_photometric_distortion_leaves_labels_alone():
    image, labels = drawn(40, 40)
    transform = build_square(flip=0.0)
    distorted, same = transform(image, labels, np.random.default_rng(1))
    assert np.array_equal(same, labels)
    assert not np.array_equal(distorted, image)


def test_the_whole_chain_keeps_labels_on_their_pixels():
    image, labels = drawn()
    transform = SegmentationAugmentation((64, 80), (240, 90), FILL, AugmentSettings())
    seen, outputs = set(), set()
    for seed in range(60):
        result, moved = transform(image, labels, np.random.default_rng(seed))
        assert result.shape == (64, 80, 3) and moved.shape == (64, 80)
        assert result.dtype == moved.dtype == np.uint8
        share, count = agreement(result, moved)
        assert share > 0.93, seed
        assert (result[moved == IGNORED] == FILL).all()
        seen |= set(np.unique(moved))
        outputs.add(count == 64 * 80)
    assert seen == {0, 1, 2, 3, IGNORED} and outputs == {True, False}
    again = transform(image, labels, np.random.default_rng(59))
    assert np.array_equal(again[0], result) and np.array_equal(again[1], moved)
