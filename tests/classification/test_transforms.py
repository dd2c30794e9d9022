"""Transforms against torchvision's, and their distributions."""

import numpy as np
import pytest
from helpers import reference
from PIL import Image

from src.classification.center_crop import CenterCrop
from src.classification.transforms import ClassificationAugmentation, draw_crop, jitter


def random_image(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def augmentation(size, crop_ratio=1.0, flip=0.0, interpolation="bilinear", rand_augment=None):
    """Of a crop of full area, without colour jitter."""
    ratio = (crop_ratio, crop_ratio)
    return ClassificationAugmentation(size, (1.0, 1.0), ratio, flip, 0.0, interpolation, rand_augment)


@pytest.mark.parametrize("size", [(300, 200), (200, 301), (64, 64), (37, 500), (1000, 65)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_center_crop_equals_torchvision(size, interpolation):
    transforms = reference("torchvision.transforms")
    mode = transforms.InterpolationMode(interpolation)
    theirs = transforms.Compose([transforms.Resize(72, mode), transforms.CenterCrop(64)])
    image = random_image(*size)
    assert np.array_equal(np.asarray(CenterCrop(64, 72, interpolation)(image)), np.asarray(theirs(image)))


def test_crops_have_torchvisions_distribution():
    transforms, torch = reference("torchvision.transforms"), reference("torch")
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    image = Image.new("RGB", (120, 80))
    ours = np.array([draw_crop(120, 80, (0.2, 1.0), (0.75, 1.33), generator) for _ in range(4000)])
    assert (ours[:, :2] >= 0).all() and (ours[:, 2] <= 120).all() and (ours[:, 3] <= 80).all()
    draw = transforms.RandomResizedCrop.get_params
    theirs = np.array([draw(image, [0.2, 1.0], [0.75, 1.33]) for _ in range(4000)])  # top, left, height, width
    theirs = np.stack((theirs[:, 1], theirs[:, 0], theirs[:, 1] + theirs[:, 3], theirs[:, 0] + theirs[:, 2]), 1)
    for ours_i, theirs_i in zip(ours.T, theirs.T):
        deciles = np.linspace(0.1, 0.9, 9)
        # standard error of a decile is about 1 pixel here
        assert np.abs(np.quantile(ours_i, deciles) - np.quantile(theirs_i, deciles)).max() < 5


def test_an_impossible_crop_falls_back_to_the_centre():
    generator = np.random.default_rng(0)
    assert draw_crop(1000, 40, (0.9, 1.0), (0.75, 4 / 3), generator) == (473, 0, 526, 40)


def test_flip_probability():
    image = random_image(8, 8)
    pixels, flipped = np.asarray(image), np.asarray(image)[:, ::-1]
    generator = np.random.default_rng(0)
    transform = augmentation(8, flip=0.3)
    results = [np.asarray(transform(image, generator)) for _ in range(500)]
    assert all(np.array_equal(r, pixels) or np.array_equal(r, flipped) for r in results)
    assert 0.24 < np.mean([np.array_equal(r, flipped) for r in results]) < 0.36


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

    transform = augmentation(40, flip=1.0, rand_augment=rand_augment)
    assert transform(image, generator).getcolors() == [(1600, (255, 0, 0))]
    assert np.array_equal(np.asarray(seen[0]), np.asarray(image)[:, ::-1])


def test_jitter_scales_brightness_within_its_range():
    generator = np.random.default_rng(0)
    grey = Image.new("RGB", (4, 4), (100, 100, 100))  # contrast and saturation leave plain grey as it is
    levels = [np.asarray(jitter(grey, 0.4, generator))[0, 0, 0] for _ in range(300)]
    assert 60 <= min(levels) < 70 and 130 < max(levels) <= 140
