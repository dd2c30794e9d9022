"""RandAugment against timm's: every operation pixel for pixel, the distributions, and the policy strings."""

import math
import random

import numpy as np
import pytest
from classification.policy_cases import DEVIATIONS, GREY, Draws, images, old_posterize
from helpers import reference
from PIL import Image, ImageOps

from src.classification.operations import OPERATIONS
from src.classification.rand_augment import NAMES, RandAugment, parse_policy
from src.data.images import IMAGENET_MEAN
from src.data.settings import PipelineSettings
from src.errors import UserError

MAGNITUDES = (0, 0.4, 2, 5, 7.7, 9, 10)
SIGNED = {
    False: {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"},
    True: {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "Color", "Contrast", "Brightness", "Sharpness"},
}


def timm_transform(policy):
    """timm's transform with what its training script passes."""
    settings = {"translate_const": 100, "img_mean": GREY}
    return reference("timm.data.auto_augment").rand_augment_transform(policy, settings)


def timm_operation(name, increasing):
    operations = timm_transform(f"rand-p1-mmax30-inc{int(increasing)}").ops
    return dict(zip(NAMES, operations))[name]


def test_operations_are_timms():
    for text in ("rand-inc0", "rand-inc1"):
        names = [operation.name.replace("Increasing", "").replace("Rel", "") for operation in timm_transform(text).ops]
        assert tuple(names) == NAMES


@pytest.mark.parametrize("increasing", [False, True], ids=["plain", "increasing"])
@pytest.mark.parametrize("name", NAMES)
def test_operation_equals_timms(name, increasing, monkeypatch):
    auto_augment = reference("timm.data.auto_augment")
    ours, theirs = RandAugment(f"rand-inc{int(increasing)}", GREY, "bilinear"), timm_operation(name, increasing)
    monkeypatch.setattr(ImageOps, "posterize", old_posterize)
    changed = set()
    for image in images():
        for magnitude in (*MAGNITUDES, 17, 30):
            results = []
            # for both, a number below a half means plus and bilinear
            for number in (0.2, 0.8):
                for choice in (0, 1):
                    draws = Draws(number, choice)
                    monkeypatch.setattr(auto_augment, "random", draws)
                    theirs.magnitude = magnitude
                    expected = np.asarray(theirs(image))
                    ours.interpolation = ("bilinear", "bicubic")[choice]
                    result = ours.apply(name, image, magnitude, draws)
                    assert isinstance(result, Image.Image) and result.mode == "RGB"
                    assert np.array_equal(np.asarray(result), expected), (magnitude, number, choice)
                    results.append(expected.tobytes())
            if magnitude == 7.7 and image.size == (61, 48):
                assert (results[0] != results[2]) == (name in SIGNED[increasing])
                assert (results[0] != results[1]) == bool(OPERATIONS[name].is_geometric)
            changed.add(results[0] != image.tobytes())
    assert True in changed


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "random"])
def test_interpolation_is_fixed_or_drawn(interpolation):
    image = next(images())
    results = {}
    for mode in ("bilinear", "bicubic"):
        results[mode] = RandAugment("rand", GREY, mode).apply("Rotate", image, 5, Draws(0.2)).tobytes()
    augment, generator = RandAugment("rand", GREY, interpolation), np.random.default_rng(0)
    found = [augment.apply("Rotate", image, 5, generator).tobytes() for _ in range(400)]
    counts = {mode: found.count(result) for mode, result in results.items()}  # half of them turn the other way
    expected = {mode: 200 * (0.5 if interpolation == "random" else mode == interpolation) for mode in counts}
    for mode, count in counts.items():
        assert abs(count - expected[mode]) < DEVIATIONS * 10 * (expected[mode] > 0) + 1


def record(augment, monkeypatch):
    """Make `augment` note (operation, magnitude, sign) instead of changing images."""
    notes = []
    monkeypatch.setattr(augment, "apply", lambda name, image, magnitude, generator: notes.append((name, magnitude)))
    return notes


def timm_notes(policy, count, monkeypatch):
    """(operation, magnitude) of `count` calls of timm's transform."""
    auto_augment = reference("timm.data.auto_augment")
    monkeypatch.setattr(auto_augment, "random", random.Random(0))
    np.random.seed(0)  # noqa: NPY002
    transform, notes = timm_transform(policy), []
    for name, operation in zip(NAMES, transform.ops):
        operation.level_fn = lambda magnitude, hparams: (magnitude,)
        operation.aug_fn = lambda image, magnitude, name=name, **_: notes.append((name, magnitude))
    for _ in range(count):
        transform(None)
    return notes


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5", "rand-m3-n3-mstd2-p0.8", "rand-m7-mstd101", "rand-m12-mmax15"])
def test_draws_have_timms_distribution(policy, monkeypatch):
    count = 6000
    theirs = timm_notes(policy, count, monkeypatch)
    augment, generator = RandAugment(policy, GREY, "bilinear"), np.random.default_rng(0)
    ours = record(augment, monkeypatch)
    for _ in range(count):
        augment(None, generator)
    settings = augment.policy
    drawn = count * settings.operations
    error = math.sqrt(drawn * settings.probability * (1 - settings.probability))
    for notes in (ours, theirs):
        assert abs(len(notes) - drawn * settings.probability) < DEVIATIONS * error
    for name in NAMES:
        share = settings.probability / len(NAMES)
        error = math.sqrt(2 * drawn * share * (1 - share))
        numbers = [sum(note[0] == name for note in notes) for notes in (ours, theirs)]
        assert abs(numbers[0] - numbers[1]) < DEVIATIONS * error
    ours, theirs = (np.array([magnitude for _, magnitude in notes], float) for notes in (ours, theirs))
    for values in (ours, theirs):
        assert values.min() >= 0 and values.max() <= settings.magnitude_max
    # the largest difference of two empirical distributions: above 1.95 / sqrt(n / 2) once in 1000 times
    levels = np.concatenate((ours, theirs))
    shares = [np.searchsorted(np.sort(values), levels, side="right") / len(values) for values in (ours, theirs)]
    assert np.abs(shares[0] - shares[1]).max() < 1.95 / math.sqrt(min(len(ours), len(theirs)) / 2)
    error = math.sqrt((ours.var() + theirs.var()) / min(len(ours), len(theirs)))
    assert abs(ours.mean() - theirs.mean()) <= DEVIATIONS * error
    assert ours.std() == pytest.approx(theirs.std(), rel=0.05)


def test_the_authors_policy_in_numbers(monkeypatch):
    augment, generator = RandAugment("rand-m9-mstd0.5", GREY, "bilinear"), np.random.default_rng(0)
    notes = record(augment, monkeypatch)
    for _ in range(5000):
        augment(None, generator)
    magnitudes = np.array([magnitude for _, magnitude in notes])
    # normal noise around 9, of which 2.3 % lie above 10 and are clipped
    assert abs(magnitudes.mean() - 9) < 0.03 and 0.47 < magnitudes.std() < 0.51
    assert 0.017 < (magnitudes == 10).mean() < 0.029


def test_signs_are_even(monkeypatch):
    augment, generator = RandAugment("rand", GREY, "bilinear"), np.random.default_rng(0)
    monkeypatch.setitem(OPERATIONS, "Rotate", OPERATIONS["Rotate"]._replace(apply=lambda image, degrees, *_: degrees))
    degrees = [augment.apply("Rotate", None, 10, generator) for _ in range(2000)]
    assert set(degrees) == {30.0, -30.0}
    assert abs(np.sign(degrees).sum()) < DEVIATIONS * math.sqrt(2000)


POLICIES = [
    "rand",
    "rand-m9-mstd0.5",
    "rand-m9-mstd0.5-inc1",
    "rand-n3-m5-p0.25-mmax20-inc0",
    "rand-mstd101",
    "rand-m7-mstd100-mmax0",
    "rand-n0",
]


@pytest.mark.parametrize("text", POLICIES)
def test_policy_strings_mean_what_they_mean_to_timm(text):
    policy, theirs = parse_policy(text), timm_transform(text)
    operation = theirs.ops[0]
    assert policy.operations == theirs.num_layers
    assert (policy.magnitude, policy.probability) == (operation.magnitude, operation.prob)
    assert policy.magnitude_std == operation.magnitude_std
    assert policy.magnitude_max == (operation.magnitude_max or 10)
    assert policy.increasing == any(operation.name.endswith("Increasing") for operation in theirs.ops)


def test_uniform_by_name():
    assert parse_policy("rand-mstdinf") == parse_policy("rand-mstd101")


@pytest.mark.parametrize("mean", [IMAGENET_MEAN, (0.5, 0.5, 0.5), (0.0, 1.0, 0.4914)])
def test_fill_is_timms(mean):
    transforms = reference("timm.data").create_transform(
        64, is_training=True, auto_augment="rand", mean=mean, interpolation="random"
    )
    operation = transforms.transforms[2].ops[0]
    assert PipelineSettings(mean=mean).mean_colour == operation.kwargs["fillcolor"]
    assert operation.kwargs["resample"] == (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rand-", "'rand-': part '' is none of mN magnitude, nN operations"),
        ("rand-x3", "'rand-x3': part 'x3' is none of mN magnitude, nN operations an image, pX probability"),
        ("rand-m9.5", "part 'm9.5' is none of"),
        ("rand-m", "part 'm' is none of"),
        ("rand-minf", "part 'minf' is none of"),
        ("rand-m9-mstd1.2.3", "part 'mstd1.2.3' is none of"),
        ("rand-p1.5", "part 'p1.5' is none of"),
        ("rand-inc2", "part 'inc2' is none of"),
        ("rand-tweights", "part 'tweights' is none of"),
        ("rand-m9-m8", "part 'm8' says again what another part says"),
    ],
)
def test_a_wrong_policy_is_named(text, message):
    with pytest.raises(UserError) as error:
        parse_policy(text)
    assert message in str(error.value) and "\n" not in str(error.value)
