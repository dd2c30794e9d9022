"""TrivialAugment against torchvision's TrivialAugmentWide: every operation pixel for pixel, and the draws."""

import math

import numpy as np
import pytest
from classification.policy_cases import DEVIATIONS, GREY, Draws, images
from helpers import reference

from src.classification import trivial_augment
from src.classification.trivial_augment import NAMES, OPERATIONS, STRENGTHS, TrivialAugment


def torchvision_space():
    """{operation: (magnitudes, whether there is a sign)}"""
    return reference("torchvision.transforms").TrivialAugmentWide()._augmentation_space(STRENGTHS)


def test_operations_are_torchvisions():
    space = torchvision_space()
    assert tuple(space) == NAMES
    for name, (magnitudes, _) in space.items():
        assert (magnitudes.ndim > 0) == (OPERATIONS[name].argument is not None)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", NAMES)
def test_operation_equals_torchvisions(name, interpolation):
    """A number below a half means plus. torchvision's strengths are multiples of 0.033, 4.5 and 8.5 in float32."""
    apply = reference("torchvision.transforms.autoaugment")._apply_op
    mode = reference("torchvision.transforms").InterpolationMode(interpolation)
    magnitudes, signed = torchvision_space()[name]
    magnitudes = [round(value, 5) for value in magnitudes.tolist()] if magnitudes.ndim else [0.0] * STRENGTHS
    ours, changed = TrivialAugment("trivial", GREY, interpolation), set()
    for image in images():
        for index, magnitude in enumerate(magnitudes):
            for number, sign in ((0.2, 1), (0.8, -1 if signed else 1)):
                expected = apply(image, name, sign * magnitude, mode, list(GREY))
                result = ours.apply(name, image, index / (STRENGTHS - 1), Draws(number))
                difference = np.abs(np.asarray(result, np.int16) - np.asarray(expected, np.int16))
                if name.startswith("Shear"):  # torchvision's factor is the tangent of an arctangent
                    assert difference.max() <= 1 and (difference > 0).mean() < 0.01, (index, sign)
                else:
                    assert difference.max() == 0, (index, sign)
                changed.add(result.tobytes() != image.tobytes())
    assert changed == ({False} if name == "Identity" else {True, False})


def test_operations_and_strengths_are_drawn_evenly(monkeypatch):
    notes = []
    augment = TrivialAugment("trivial", GREY, "bilinear")
    monkeypatch.setattr(augment, "apply", lambda name, image, level, generator: notes.append((name, level)))
    generator, count = np.random.default_rng(0), 14_000
    for _ in range(count):
        augment(None, generator)
    names, levels = ([note[part] for note in notes] for part in (0, 1))
    assert sorted({round(level * 30, 9) for level in levels}) == list(range(31))
    for values, choices in ((names, NAMES), (levels, sorted(set(levels)))):
        share = 1 / len(choices)
        error = math.sqrt(count * share * (1 - share))
        assert all(abs(values.count(choice) - count * share) < DEVIATIONS * error for choice in choices)


def test_one_operation_with_a_random_sign(monkeypatch):
    rotate = OPERATIONS["Rotate"]._replace(apply=lambda image, degrees, resampling, fill: degrees)
    monkeypatch.setattr(trivial_augment, "OPERATIONS", {"Rotate": rotate})
    monkeypatch.setattr(trivial_augment, "NAMES", ("Rotate",))
    augment, generator = TrivialAugment("trivial", GREY, "random"), np.random.default_rng(0)
    degrees = np.array([augment(None, generator) for _ in range(3100)])
    assert np.abs(degrees).max() == 135 and len(np.unique(degrees.round(6))) == 61
    assert abs(np.sign(degrees).sum()) < DEVIATIONS * math.sqrt(3000)
