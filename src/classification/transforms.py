"""Image transforms: (PIL image, numpy Generator) -> PIL image. The names and rules are torchvision's and timm's.

Known difference: `blur` is torchvision's within one level of 255, as it sums in another order. Pillow's own blur is an
approximation by boxes.
"""

import math

import numpy as np
from mindspore.dataset import vision
from PIL import Image, ImageEnhance
from scipy.ndimage import correlate1d

from src.classification.center_crop import RESAMPLING

MINDSPORE_RESAMPLING = {"bilinear": vision.Inter.LINEAR, "bicubic": vision.Inter.BICUBIC}
CROP_ATTEMPTS = 10
BLUR_RADIUS = 11  # pixels; timm's kernel has 23
BLUR_SIGMA = (0.1, 2.0)  # pixels; torchvision's default


class MindSporeCenterCrop:
    """`CenterCrop` as the official MindSpore port evaluates: PIL image -> uint8 (size, size, 3). Uses no randomness.

    The resize is MindSpore's C++ operation, which has no antialiasing: on photographs the network's input differs
    by 0.05 on average and by up to 4, in units of the standard deviation.
    """

    def __init__(self, size, resize, interpolation):
        self.size, self.resize, self.resampling = size, resize, MINDSPORE_RESAMPLING[interpolation]

    def __call__(self, image, generator=None):
        return vision.CenterCrop(self.size)(vision.Resize(self.resize, self.resampling)(np.asarray(image)))


class ClassificationAugmentation:
    """Random resized crop, flips, a policy, colour jitter, grey, blur: in timm's order.

    What is off draws no random number.

    Args:
        size: side of the result in pixels.
        crop_scale: range of the crop's share of the area.
        crop_ratio: range of its width over height, drawn on a logarithmic scale.
        flip, vertical_flip: probability of a horizontal and of a vertical flip.
        color_jitter: brightness, contrast and saturation are scaled by 1 - x to 1 + x, in random order.
        grayscale, gaussian_blur: probability of the image in grey levels, and of one that is blurred.
        interpolation: of the crop, 'bilinear', 'bicubic', or 'random': either, drawn for each image.
        policy: from `build_policy`; None: none.
    """

    def __init__(
        self,
        size,
        crop_scale,
        crop_ratio,
        flip,
        vertical_flip,
        color_jitter,
        grayscale,
        gaussian_blur,
        interpolation,
        policy,
    ):
        self.size, self.interpolation = size, interpolation
        self.crop_scale, self.crop_ratio = crop_scale, crop_ratio
        self.flip, self.vertical_flip = flip, vertical_flip
        self.color_jitter, self.policy = color_jitter, policy
        self.grayscale, self.gaussian_blur = grayscale, gaussian_blur

    def __call__(self, image, generator):
        box = draw_crop(*image.size, self.crop_scale, self.crop_ratio, generator)
        image = image.crop(box).resize((self.size, self.size), draw_resampling(self.interpolation, generator))
        if generator.random() < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.vertical_flip > 0 and generator.random() < self.vertical_flip:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if self.policy is not None:
            image = self.policy(image, generator)
        if self.color_jitter > 0:
            image = jitter(image, self.color_jitter, generator)
        if self.grayscale > 0 and generator.random() < self.grayscale:
            image = image.convert("L").convert("RGB")
        if self.gaussian_blur > 0 and generator.random() < self.gaussian_blur:
            image = blur(image, generator.uniform(*BLUR_SIGMA))
        return image


def draw_resampling(interpolation, generator):
    """Choose Pillow's constant for 'bilinear', 'bicubic', or at random one of both for 'random'."""
    if interpolation == "random":
        interpolation = "bilinear" if generator.random() < 0.5 else "bicubic"
    return RESAMPLING[interpolation]


def draw_crop(width, height, scale, ratio, generator):
    """Draw a box of random area and aspect in an image.

    Args:
        width, height: of the image.
        scale: range of the box's share of the area.
        ratio: range of its width over height, drawn on a logarithmic scale.
        generator: numpy Generator.

    Returns:
        (left, top, right, bottom); the centre of the image where `CROP_ATTEMPTS` draws do not fit.
    """
    for _ in range(CROP_ATTEMPTS):
        area = width * height * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(generator.integers(0, width - crop_width + 1))
            top = int(generator.integers(0, height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    aspect = min(max(width / height, ratio[0]), ratio[1])
    crop_width, crop_height = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def jitter(image, strength, generator):
    """Scale brightness, contrast and saturation, each by a factor of its own, in random order."""
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for index in generator.permutation(len(enhancers)):
        image = enhancers[index](image).enhance(generator.uniform(max(0.0, 1 - strength), 1 + strength))
    return image


def blur(image, sigma):
    """Blur a PIL image by a Gaussian of `BLUR_RADIUS`; its edge is mirrored, the outermost pixels not repeated.

    Args:
        image: PIL image with sides above `BLUR_RADIUS`.
        sigma: standard deviation in pixels.
    """
    kernel = np.exp(-0.5 * (np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    pixels = np.asarray(image, np.float32)
    for axis in (0, 1):
        pixels = correlate1d(pixels, kernel, axis, mode="mirror")
    return Image.fromarray(np.rint(pixels).astype(np.uint8))
