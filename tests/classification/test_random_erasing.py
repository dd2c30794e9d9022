"""Random erasing against timm's: how often, where and how large; and what is written there."""

import math
import random

import numpy as np
import pytest
from helpers import reference

from src.classification.random_erasing import RandomErasing, draw_rectangle, erase

HEIGHT, WIDTH = 60, 45
DEVIATIONS = 4.5  # allowed, in standard errors; all draws are seeded


def rectangle_of(erased):
    """(top, left, height, width) of the region of a boolean (H, W), which must be a full rectangle."""
    rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
    top, left, height, width = rows[0], columns[0], len(rows), len(columns)
    assert erased.sum() == height * width == (rows[-1] - top + 1) * (columns[-1] - left + 1)
    return top, left, height, width


def our_rectangles(count, probability):
    operation, keys = RandomErasing(probability, "const", seed=7), [(0, index) for index in range(count)]
    for image in operation(np.ones((count, 3, HEIGHT, WIDTH), np.float32), None, np.array(keys))[0]:
        erased = (image == 0).all(0)
        if erased.any():
            yield rectangle_of(erased)


def timm_rectangles(count, probability, monkeypatch):
    torch, module = reference("torch"), reference("timm.data.random_erasing")
    monkeypatch.setattr(module, "random", random.Random(0))
    operation = module.RandomErasing(probability, mode="const", device="cpu")
    for _ in range(count):
        erased = (operation(torch.ones(3, HEIGHT, WIDTH)) == 0).all(0).numpy()
        if erased.any():
            yield rectangle_of(erased)


def test_rectangles_have_timms_distribution(monkeypatch):
    count, probability = 8000, 0.4
    ours = np.array(list(our_rectangles(count, probability)))
    theirs = np.array(list(timm_rectangles(count, probability, monkeypatch)))
    error = math.sqrt(count * probability * (1 - probability))
    for found in (ours, theirs):
        assert abs(len(found) - count * probability) < DEVIATIONS * error
    shares = {
        "top": lambda r: r[:, 0],
        "left": lambda r: r[:, 1],
        "bottom": lambda r: r[:, 0] + r[:, 2],
        "right": lambda r: r[:, 1] + r[:, 3],
        "area": lambda r: r[:, 2] * r[:, 3],
        "aspect": lambda r: np.log(r[:, 2] / r[:, 3]),
    }
    for name, measure in shares.items():
        values = [np.sort(measure(found)) for found in (ours, theirs)]
        levels = np.concatenate(values)
        distances = np.subtract(*(np.searchsorted(v, levels, side="right") / len(v) for v in values))
        # two samples of one distribution differ by more once in 1000 times
        assert np.abs(distances).max() < 1.95 / math.sqrt(min(map(len, values)) / 2), name


def test_areas_and_aspects_fill_their_ranges():
    generator = np.random.default_rng(0)
    found = [draw_rectangle(1000, 1000, generator) for _ in range(3000)]
    areas = np.array([height * width for _, _, height, width in found]) / 1e6
    aspects = np.log([height / width for _, _, height, width in found])
    assert 0.019 < areas.min() < 0.023 and 0.33 < areas.max() < 0.335
    assert -1.21 < aspects.min() < -1.19 and 1.19 < aspects.max() < 1.21  # log 0.3 = -1.204
    # both uniform, but for the few that do not fit
    assert abs(areas.mean() - 0.1767) < 0.01
    assert abs(aspects.mean()) < DEVIATIONS * 0.695 / math.sqrt(3000)


def test_a_rectangle_is_smaller_than_the_image():
    generator = np.random.default_rng(0)
    found = [draw_rectangle(5, 5, generator) for _ in range(500)]
    assert max(height for _, _, height, _ in found) == max(width for _, _, _, width in found) == 4


def test_an_image_too_flat_for_any_rectangle_stays():
    image = np.ones((3, 1, 400), np.float32)
    erase(image, "pixel", np.random.default_rng(0))
    assert (image == 1).all()


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_only_the_rectangle_changes_and_gets_normal_noise(mode):
    rng = np.random.default_rng(1)
    image = rng.uniform(5, 6, (3, HEIGHT, WIDTH)).astype(np.float32)
    keys, labels, regions = np.array([(2, index) for index in range(600)]), np.arange(600), []
    results, *others = RandomErasing(1.0, mode, seed=3)(np.repeat(image[None], 600, axis=0), labels, keys)
    assert others[0] is labels and others[1] is keys
    for result in results:
        assert result.dtype == np.float32 and result.shape == image.shape
        changed = (result != image).all(0)
        top, left, height, width = rectangle_of(changed)
        assert np.array_equal(result[:, ~changed], image[:, ~changed])
        regions.append(result[:, top : top + height, left : left + width].reshape(3, -1))
    if mode == "const":
        assert not np.concatenate(regions, 1).any()
        return
    if mode == "rand":
        assert all((region == region[:, :1]).all() for region in regions)
        regions = [region[:, :1] for region in regions]
    values = np.concatenate(regions, 1).astype(np.float64)
    count = values.shape[1]
    assert count == 600 if mode == "rand" else count > 100_000
    assert np.abs(values.mean(1)).max() < DEVIATIONS / math.sqrt(count)
    assert np.abs(values.var(1) - 1).max() < DEVIATIONS * math.sqrt(2 / count)
    assert np.abs(np.corrcoef(values) - np.eye(3)).max() < DEVIATIONS / math.sqrt(count)  # channels are independent


def test_noise_depends_on_seed_epoch_and_index_only():
    def result(seed, epoch, index):
        images = np.zeros((1, 3, HEIGHT, WIDTH), np.float32)
        return RandomErasing(1.0, "pixel", seed)(images, None, np.array([(epoch, index)]))[0].tobytes()

    keys = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]
    results = [result(*key) for key in keys]
    assert len(set(results)) == 4
    assert [result(*key) for key in keys[::-1]] == results[::-1]
