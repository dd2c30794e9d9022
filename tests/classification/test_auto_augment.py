"""AutoAugment against timm's: the tables, every pair pixel for pixel, the draws, and the policy strings."""

import math

import numpy as np
import pytest
from classification.policy_cases import DEVIATIONS, GREY, Draws, images, old_posterize
from helpers import reference
from PIL import ImageOps

from src.classification import auto_augment
from src.classification.auto_augment import POLICIES, AutoAugment


def timm_transform(text):
    """timm's transform with what its training script passes."""
    return reference("timm.data.auto_augment").auto_augment_transform(text, {"img_mean": GREY})


@pytest.mark.parametrize("name", POLICIES)
def test_tables_are_timms(name):
    theirs = tuple(
        tuple((operation.name.replace("Rel", ""), operation.prob, operation.magnitude) for operation in pair)
        for pair in timm_transform(name).policy
    )
    assert POLICIES[name] == theirs and len(theirs) == 25


@pytest.mark.parametrize("name", POLICIES)
def test_every_pair_gives_timms_pixels(name, monkeypatch):
    """For both, a number below a half means plus and bilinear, one below the probability that it is applied."""
    theirs = timm_transform(name)
    monkeypatch.setattr(ImageOps, "posterize", old_posterize)
    changed = set()
    for image in images():
        for pair in range(25):
            for number in (0.01, 0.19, 0.3, 0.51, 0.7, 0.9):
                for choice in (0, 1):
                    draws = Draws(number, choice, pair)
                    monkeypatch.setattr(reference("timm.data.auto_augment"), "random", draws)
                    ours = AutoAugment(name, GREY, ("bilinear", "bicubic")[choice])
                    expected, result = theirs(image), ours(image, draws)
                    assert result.tobytes() == expected.tobytes(), (pair, number, choice)
                    if result.tobytes() != image.tobytes():
                        changed.add((pair, number))
    assert len({pair for pair, _ in changed}) == 25 and 80 < len(changed) < 150


def record(monkeypatch):
    """Note (operation, level) of what is applied instead of changing images."""
    notes, names = [], {id(operation): name for name, operation in auto_augment.OPERATIONS.items()}
    apply = lambda operation, image, level, *_: notes.append((names[id(operation)], level))  # noqa: E731
    monkeypatch.setattr(auto_augment, "apply_operation", apply)
    return notes


def test_pairs_and_probabilities_are_drawn_as_the_table_says(monkeypatch):
    count, generator, notes = 20_000, np.random.default_rng(0), record(monkeypatch)
    augment = AutoAugment("v0", GREY, "bilinear")
    for _ in range(count):
        augment(None, generator)
    expected = {}
    for name, probability, magnitude in (operation for pair in POLICIES["v0"] for operation in pair):
        key = name, magnitude / 10
        expected[key] = expected.get(key, 0) + probability / 25
    assert set(notes) == {key for key, share in expected.items() if share > 0}
    for key, share in expected.items():  # where a row has one operation twice, the error is a little larger
        assert abs(notes.count(key) - count * share) <= 1.5 * DEVIATIONS * math.sqrt(count * share * (1 - share)), key


@pytest.mark.parametrize(
    ("text", "mean", "std"),
    # of normal noise around 9, 2.3 % is above 10 and clipped; uniform noise is within [0, 9]
    [("original", 0.9, 0), ("original-mstd0.5", 0.8992, 0.049), ("original-mstdinf", 0.45, 0.9 / math.sqrt(12))],
)
def test_noise_on_the_magnitude(text, mean, std, monkeypatch):
    generator, notes, augment = np.random.default_rng(0), record(monkeypatch), AutoAugment(text, GREY, "bilinear")
    augment.pairs = ((("Rotate", 1.0, 9), ("Rotate", 1.0, 9)),)
    for _ in range(5000):
        augment(None, generator)
    levels = np.array([level for _, level in notes])
    assert len(levels) == 10_000 and levels.max() <= 1
    assert abs(levels.mean() - mean) < DEVIATIONS * std / 100 + 1e-9
    assert levels.std() == pytest.approx(std, rel=0.03, abs=1e-9)


@pytest.mark.parametrize("text", ["original", "v0-mstd0.5", "originalr-mstd0", "v0r-mstd101"])
def test_policy_strings_mean_what_they_mean_to_timm(text):
    assert AutoAugment(text, GREY, "bilinear").magnitude_std == timm_transform(text).policy[0][0].magnitude_std
