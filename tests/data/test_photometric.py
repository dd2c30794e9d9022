"""Photometric distortion against the standard library's colour conversion."""

import colorsys

import numpy as np
import pytest

from src.data.photometric import (
    PhotometricOptions,
    distort,
    rotate_hue,
    scale_contrast,
    scale_saturation,
    shift_brightness,
)


def random_image(height=9, width=11):
    """Random colours, with grey, black, white and pure ones among them."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image[0, :6] = [(0, 0, 0), (255, 255, 255), (90, 90, 90), (255, 0, 0), (0, 200, 0), (3, 3, 100)]
    return image.astype(np.float32)


def through_hsv(pixels, change):
    """`change` of (hue, saturation, value) in [0, 1], pixel by pixel."""
    rows = [[colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in row] for row in pixels / 255.0]
    return np.array(rows) * 255


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_saturation(factor):
    expected = through_hsv(random_image(), lambda h, s, v: (h, min(1.0, s * factor), v))
    assert np.abs(scale_saturation(random_image(), factor) - expected).max() < 1e-3


@pytest.mark.parametrize("degrees", [-18.0, 0.0, 18.0, 150.0])
def test_hue(degrees):
    expected = through_hsv(random_image(), lambda h, s, v: ((h + degrees / 360) % 1, s, v))
    assert np.abs(rotate_hue(random_image(), degrees) - expected).max() < 1e-3


def test_brightness_and_contrast_stay_in_range():
    pixels = np.array([[[0, 100, 250]]], np.float32)
    assert shift_brightness(pixels, 20).tolist() == [[[20, 120, 255]]]
    assert shift_brightness(pixels, -20).tolist() == [[[0, 80, 230]]]
    assert scale_contrast(pixels, 1.5).tolist() == [[[0, 150, 255]]]


def test_distortion_is_random_but_repeatable():
    image = random_image().astype(np.uint8)
    before = image.copy()
    options = PhotometricOptions()
    results = [distort(image, np.random.default_rng(seed), options) for seed in range(64)]
    assert np.array_equal(image, before)
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
    unchanged = sum(np.array_equal(result, image) for result in results)
    assert 0 < unchanged < 16  # one in 16 is expected
    assert np.array_equal(distort(image, np.random.default_rng(7), options), results[7])


def test_channels_are_swapped_in_half_of_the_images_and_last():
    off = {"brightness": 0.0, "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": 0.0}
    image = random_image().astype(np.uint8)
    orders = {}
    for seed in range(240):
        result = distort(image, np.random.default_rng(seed), PhotometricOptions(**off, swap_channels=True))
        order = tuple(int(np.flatnonzero((image == result[..., [channel]]).all((0, 1)))[0]) for channel in range(3))
        orders[order] = orders.get(order, 0) + 1
    assert len(orders) == 6 and 120 < orders.pop((0, 1, 2)) < 160  # one in six swaps changes nothing
    assert all(8 < count < 35 for count in orders.values())
    bright, plain = (
        [distort(image, np.random.default_rng(seed), PhotometricOptions(swap_channels=swap)) for seed in range(20)]
        for swap in (True, False)
    )
    assert all(np.array_equal(np.sort(a, 2), np.sort(b, 2)) for a, b in zip(bright, plain))


def test_each_limit_holds():
    """With one change switched on at a time, on mid colours that do not saturate."""
    off = {"brightness": 0.0, "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": 0.0}
    image = np.full((1, 1, 3), (100, 110, 120), np.uint8)

    def reds(**changes):
        options = PhotometricOptions(**{**off, **changes})
        return [int(distort(image, np.random.default_rng(seed), options)[0, 0, 0]) for seed in range(99)]

    assert set(reds()) == {100}
    brighter, scaled = reds(brightness=32.0), reds(contrast=(0.5, 1.5))
    assert min(brighter) >= 68 and max(brighter) <= 132 and max(brighter) - min(brighter) > 50
    assert min(scaled) >= 50 and max(scaled) <= 150 and max(scaled) - min(scaled) > 80
