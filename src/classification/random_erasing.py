"""Random erasing: a random rectangle of a normalised image is overwritten with noise.

Source: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, https://arxiv.org/abs/1708.04896, section 3.
Ranges and modes are those of timm's `RandomErasing`: on the normalised image, with normal noise instead of the
paper's uniform grey levels.
"""

import math

import numpy as np

AREA = (0.02, 1 / 3)  # share of the image
ASPECT = (0.3, 1 / 0.3)  # height over width, drawn on a logarithmic scale
ATTEMPTS = 10
# the last word of the key: shuffle and transform have shorter keys, which are as if filled up with zeros
STREAM = 1


class RandomErasing:
    """Pipeline operation on (images float32 (B, C, H, W), labels, keys (B, 2)): erases within `images`.

    Args:
        probability: that an image has one.
        mode: 'pixel': normal noise in every pixel and channel; 'rand': one normal colour; 'const': zeros, which
            are the mean colour.
        seed: of the run; all randomness comes from (seed, epoch, index).
    """

    def __init__(self, probability, mode, seed):
        self.probability, self.mode, self.seed = probability, mode, seed

    def __call__(self, images, labels, keys):
        for image, key in zip(images, keys):
            generator = np.random.default_rng((self.seed, int(key[0]), int(key[1]), STREAM))
            if generator.random() < self.probability:
                erase(image, self.mode, generator)
        return images, labels, keys


def erase(image, mode, generator):
    """Erase one rectangle of `image` (C, H, W), none where ten draws do not fit."""
    rectangle = draw_rectangle(*image.shape[1:], generator)
    if rectangle is None:
        return
    top, left, height, width = rectangle
    region = image[:, top : top + height, left : left + width]
    if mode == "const":
        region[...] = 0
    else:
        shape = region.shape if mode == "pixel" else (len(region), 1, 1)
        region[...] = generator.standard_normal(shape, np.float32)


def draw_rectangle(image_height, image_width, generator):
    """Draw (top, left, height, width) of the wanted area and aspect, smaller than the image; None: none fits."""
    for _ in range(ATTEMPTS):
        area = image_height * image_width * generator.uniform(*AREA)
        aspect = math.exp(generator.uniform(*map(math.log, ASPECT)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height < image_height and width < image_width:
            top = int(generator.integers(0, image_height - height + 1))
            left = int(generator.integers(0, image_width - width + 1))
            return top, left, height, width
    return None
