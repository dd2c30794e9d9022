"""Mixup and CutMix: the images of a batch are mixed in pairs, and so are their targets.

Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, https://arxiv.org/abs/1710.09412; Yun et
al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019,
https://arxiv.org/abs/1905.04899. Draws, pairs and targets are those of timm's `Mixup` in its mode 'batch': all pairs
have the same share or box, and the first image's partner is the last. Unlike there, a batch may be odd; the image in
its middle stays as it is.
"""

import math
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from src.data.sampler import epoch_of

STREAM = 2  # the last word of the key, see `random_erasing`


@dataclass(frozen=True)
class MixDraws:
    """Draws how a batch is mixed: (numpy Generator, height, width) -> (share, box).

    An image keeps `share` of its target. With a box, (top, bottom, left, right), the images swap their pixels in it;
    without one they are added, the share of each image for itself. A share of 1 leaves them as they are.

    Attributes:
        mixup, cutmix: both parameters of the beta distribution of the share; 0: none of its kind.
        cutmix_minmax: smallest and largest side of the box, as shares of the image's; None: it follows from the share.
        probability: that a batch is mixed.
        switch_probability: that it is by CutMix, where both are on.
    """

    mixup: float
    cutmix: float
    cutmix_minmax: Optional[Tuple[float, float]]
    probability: float
    switch_probability: float

    def __call__(self, generator, height, width):
        if generator.random() >= self.probability:
            return 1.0, None
        cutmix = 1.0 if self.cutmix_minmax else self.cutmix
        boxed = cutmix > 0 and (self.mixup == 0 or generator.random() < self.switch_probability)
        alpha = cutmix if boxed else self.mixup
        share = float(generator.beta(alpha, alpha))
        if not boxed or share == 1:
            return share, None
        if self.cutmix_minmax:
            box = draw_box(self.cutmix_minmax, height, width, generator)
        else:
            box = draw_square(1 - share, height, width, generator)
        top, bottom, left, right = box
        return 1 - (bottom - top) * (right - left) / (height * width), box


def draw_square(area, height, width, generator):
    """Draw (top, bottom, left, right) of the image's aspect around any pixel, cut off at the borders.

    Args:
        area: share of the image, before the cut.
        height, width: of the image.
        generator: numpy Generator.
    """
    box = []
    for size in (height, width):
        side = int(size * math.sqrt(area))
        centre = int(generator.integers(0, size))
        box += [max(centre - side // 2, 0), min(centre + (side + 1) // 2, size)]
    return tuple(box)


def draw_box(shares, height, width, generator):
    """Draw (top, bottom, left, right) inside the image.

    Args:
        shares: smallest and largest side, of the image's.
        height, width: of the image.
        generator: numpy Generator.
    """
    sizes, box = (height, width), []
    # equal ends, which timm refuses, leave one choice
    ends = [(int(size * shares[0]), int(size * shares[1])) for size in sizes]
    sides = [int(generator.integers(low, max(high, low + 1))) for low, high in ends]
    for size, side in zip(sizes, sides):
        first = int(generator.integers(0, size - side + 1))
        box += [first, first + side]
    return tuple(box)


def mix_images(images, share, box):
    """Mix images float32 (B, C, H, W) in place, pair by pair; see `MixDraws`."""
    if share == 1:
        return
    top, bottom, left, right = box or (0, images.shape[2], 0, images.shape[3])
    regions = images[:, :, top:bottom, left:right]
    for one, other in zip(regions[: len(images) // 2], regions[::-1]):
        before = one.copy()
        if box:
            one[...], other[...] = other, before
        else:
            one *= share
            one += (1 - share) * other
            other *= share
            other += (1 - share) * before


def mix_targets(labels, share, num_classes, label_smoothing):
    """Give the targets float32 (B, classes) of labels (B,): smoothed as the loss would do, and mixed."""
    spread = label_smoothing / num_classes
    targets = np.full((len(labels), num_classes), spread, np.float32)
    targets[np.arange(len(labels)), labels] = 1 - label_smoothing + spread
    return targets * share + targets[::-1] * (1 - share)


class Mixing:
    """Pipeline operation on (images float32 (B, C, H, W), labels (B,), keys (B, 2)), which mixes within `images`.

    It gives targets float32 (B, classes) in place of the labels, whether the batch is mixed or not.

    Args:
        draws: `MixDraws`.
        off_epoch: number of the epoch, from 0, with which mixing ends; 0: it never does.
        num_classes, label_smoothing: of the targets.
        seed: of the run; all randomness comes from (seed, epoch, index of the first image).
    """

    def __init__(self, draws, off_epoch, num_classes, label_smoothing, seed):
        self.draws, self.off_epoch, self.seed = draws, off_epoch, seed
        self.num_classes, self.label_smoothing = num_classes, label_smoothing

    def __call__(self, images, labels, keys):
        epoch, index = (int(number) for number in keys[0])
        share = 1.0
        if not self.off_epoch or epoch_of(epoch) < self.off_epoch:
            generator = np.random.default_rng((self.seed, epoch, index, STREAM))
            share, box = self.draws(generator, *images.shape[2:])
            mix_images(images, share, box)
        return images, mix_targets(labels, share, self.num_classes, self.label_smoothing), keys
