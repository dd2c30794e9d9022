"""Transforms against torchvision's, and their distributions."""

import numpy as np
import pytest
from helpers import reference
from PIL import Image

from src.classification import transforms
from src.classification.center_crop import CROP_MODES, CenterCrop
from src.classification.transforms import ClassificationAugmentation, blur, draw_crop, draw_resampling, jitter
from src.data.images import IMAGENET_MEAN


def random_image(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def augmentation(size, crop_ratio=1.0, interpolation="bilinear", policy=None, **probabilities):
    """Of a crop of full area; what is not given is off."""
    plain = {"flip": 0.0, "vertical_flip": 0.0, "color_jitter": 0.0, "grayscale": 0.0, "gaussian_blur": 0.0}
    crop = {"crop_scale": (1.0, 1.0), "crop_ratio": (crop_ratio, crop_ratio), "interpolation": interpolation}
    return ClassificationAugmentation(size, **crop, policy=policy, **{**plain, **probabilities})


SIZES = [(300, 200), (200, 301), (64, 64), (72, 72), (37, 500), (1000, 65), (71, 40), (9, 700), (601, 600)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_mode", CROP_MODES)
@pytest.mark.parametrize("resize", [64, 72, 73])
def test_center_crop_equals_timms(size, interpolation, crop_mode, resize):
    settings = {"interpolation": interpolation, "crop_mode": crop_mode, "crop_pct": 64 / (resize + 0.5)}
    theirs = reference("timm.data").create_transform((3, 64, 64), **settings, normalize=False)
    image = random_image(*size)
    result = np.asarray(CenterCrop(64, resize, interpolation, crop_mode, IMAGENET_MEAN)(image))
    assert np.array_equal(result, theirs(image).numpy().transpose(1, 2, 0))


@pytest.mark.parametrize("size", [(300, 200), (37, 500)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_center_crop_equals_torchvision(size, interpolation):
    torchvision = reference("torchvision.transforms")
    mode = torchvision.InterpolationMode(interpolation)
    theirs = torchvision.Compose([torchvision.Resize(72, mode), torchvision.CenterCrop(64)])
    image = random_image(*size)
    result = CenterCrop(64, 72, interpolation, "center", IMAGENET_MEAN)(image)
    assert np.array_equal(np.asarray(result), np.asarray(theirs(image)))


def test_the_border_has_the_mean_colour_also_around_a_line():
    result = np.asarray(CenterCrop(64, 64, "bicubic", "border", (0.5, 0.25, 1.0))(Image.new("RGB", (5000, 3))))
    assert (result[31] == 0).all() and (np.delete(result, 31, 0) == (128, 64, 255)).all()


def test_crops_have_torchvisions_distribution():
    torchvision, torch = reference("torchvision.transforms"), reference("torch")
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    image = Image.new("RGB", (120, 80))
    ours = np.array([draw_crop(120, 80, (0.2, 1.0), (0.75, 1.33), generator) for _ in range(4000)])
    assert (ours[:, :2] >= 0).all() and (ours[:, 2] <= 120).all() and (ours[:, 3] <= 80).all()
    draw = torchvision.RandomResizedCrop.get_params
    theirs = np.array([draw(image, [0.2, 1.0], [0.75, 1.33]) for _ in range(4000)])  # top, left, height, width
    theirs = np.stack((theirs[:, 1], theirs[:, 0], theirs[:, 1] + theirs[:, 3], theirs[:, 0] + theirs[:, 2]), 1)
    for ours_i, theirs_i in zip(ours.T, theirs.T):
        deciles = np.linspace(0.1, 0.9, 9)
        # standard error of a decile is about 1 pixel here
        assert np.abs(np.quantile(ours_i, deciles) - np.quantile(theirs_i, deciles)).max() < 5


def test_an_impossible_crop_falls_back_to_the_centre():
    generator = np.random.default_rng(0)
    assert draw_crop(1000, 40, (0.9, 1.0), (0.75, 4 / 3), generator) == (473, 0, 526, 40)


def grey(image):
    return reference("torchvision.transforms").Grayscale(3)(image)


CHANGES = {
    "flip": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "vertical_flip": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "grayscale": grey,
}


@pytest.mark.parametrize("name", CHANGES)
def test_probability(name):
    image, generator = random_image(8, 8), np.random.default_rng(0)
    pixels, changed = image.tobytes(), CHANGES[name](image).tobytes()
    results = [augmentation(8, **{name: 0.3})(image, generator).tobytes() for _ in range(500)]
    assert set(results) == {pixels, changed}
    assert 0.24 < np.mean([result == changed for result in results]) < 0.36


def test_blur_is_torchvisions_within_one_level():
    functional = reference("torchvision.transforms.functional")
    smooth = random_image(9, 8).resize((70, 50), Image.Resampling.BICUBIC)
    for image in (random_image(40, 33), smooth):
        for sigma in np.linspace(0.1, 2, 12):
            expected = np.asarray(functional.gaussian_blur(image, [23, 23], [sigma, sigma]), np.int16)
            difference = np.abs(np.asarray(blur(image, sigma), np.int16) - expected)
            assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_blur_is_drawn_as_timm_draws_it(monkeypatch):
    steps = reference("timm.data").create_transform(64, is_training=True, gaussian_blur_prob=0.3).transforms
    (random_apply,) = (step for step in steps if type(step).__name__ == "RandomApply")
    (theirs,) = random_apply.transforms
    assert random_apply.p == 0.3
    assert theirs.kernel_size == (2 * transforms.BLUR_RADIUS + 1,) * 2 and theirs.sigma == transforms.BLUR_SIGMA
    sigmas, generator, image = [], np.random.default_rng(0), random_image(33, 33)
    monkeypatch.setattr(transforms, "blur", lambda image, sigma: sigmas.append(sigma))
    for _ in range(4000):
        augmentation(33, gaussian_blur=0.3)(image, generator)
    assert abs(len(sigmas) - 1200) < 4.5 * np.sqrt(840)
    assert 0.1 <= min(sigmas) < 0.12 and 1.98 < max(sigmas) <= 2.0 and abs(np.mean(sigmas) - 1.05) < 0.07


def test_the_order_is_timms(monkeypatch):
    settings = {"vflip": 1.0, "auto_augment": "3a", "grayscale_prob": 1.0, "gaussian_blur_prob": 1.0}
    steps = reference("timm.data").create_transform(64, is_training=True, hflip=1.0, **settings).transforms
    order = ["RandomHorizontalFlip", "RandomVerticalFlip", "AutoAugment", "ColorJitter", "RandomGrayscale"]
    assert [type(step).__name__ for step in steps[1:7]] == [*order, "RandomApply"]
    image, seen = random_image(40, 40), []

    def note(name):
        def keep(given, *_):
            seen.append((name, given.tobytes()))
            return given

        return keep

    for name in ("jitter", "blur"):
        monkeypatch.setattr(transforms, name, note(name))
    names = ("flip", "vertical_flip", "color_jitter", "grayscale", "gaussian_blur")
    augment = augmentation(40, policy=note("policy"), **dict.fromkeys(names, 1.0))
    turned = image.transpose(Image.Transpose.ROTATE_180)
    result = augment(image, np.random.default_rng(0))
    assert result.tobytes() == grey(turned).tobytes()
    assert seen == [("policy", turned.tobytes()), ("jitter", turned.tobytes()), ("blur", result.tobytes())]


def test_what_is_off_draws_nothing():
    """So that runs of before these settings go on with the images that they had."""
    image = random_image(60, 50)
    for seed in range(20):
        generator, other = (np.random.default_rng(seed) for _ in range(2))
        result = augmentation(40, 1.2, interpolation="random", flip=0.5)(image, generator)
        box = draw_crop(60, 50, (1.0, 1.0), (1.2, 1.2), other)
        expected = image.crop(box).resize((40, 40), draw_resampling("random", other))
        if other.random() < 0.5:
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert result.tobytes() == expected.tobytes() and generator.random() == other.random()


def test_interpolation_is_drawn_for_each_image():
    generator, image = np.random.default_rng(0), random_image(60, 50)
    modes = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    expected = {name: image.resize((40, 40), mode).tobytes() for name, mode in modes.items()}
    for name in ("bilinear", "bicubic", "random"):
        transform = augmentation(40, 1.2, interpolation=name)
        results = [transform(image, generator).tobytes() for _ in range(400)]
        counts = {mode: results.count(pixels) for mode, pixels in expected.items()}
        assert sum(counts.values()) == 400
        if name == "random":
            assert abs(counts["bilinear"] - 200) < 45  # 4.5 standard errors
        else:
            assert counts[name] == 400


def test_rand_augment_sees_the_flipped_crop_and_has_the_last_word():
    generator, image, seen = np.random.default_rng(0), random_image(40, 40), []

    def rand_augment(crop, given):
        assert given is generator
        seen.append(crop)
        return Image.new("RGB", crop.size, "red")

    transform = augmentation(40, flip=1.0, policy=rand_augment)
    assert transform(image, generator).getcolors() == [(1600, (255, 0, 0))]
    assert np.array_equal(np.asarray(seen[0]), np.asarray(image)[:, ::-1])


def test_jitter_scales_brightness_within_its_range():
    generator = np.random.default_rng(0)
    grey = Image.new("RGB", (4, 4), (100, 100, 100))  # contrast and saturation leave plain grey as it is
    levels = [np.asarray(jitter(grey, 0.4, generator))[0, 0, 0] for _ in range(300)]
    assert 60 <= min(levels) < 70 and 130 < max(levels) <= 140
