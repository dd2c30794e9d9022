"""RandAugment: a few operations drawn from fifteen, with noise on their strength; timm's form of it.

Source: Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2019,
https://arxiv.org/abs/1909.13719, section 3. Operations, ranges and policy strings are those of timm's
`rand_augment_transform`, which trained the published weights; its transform sets (`t...`) are left out. `mstdinf`
is uniform here, as timm documents it; timm's parser passes over it.

AutoContrast, Equalize, Invert, Color, Contrast and Brightness are MindSpore's: on a PIL image they give Pillow's
pixels at Pillow's speed. The others are Pillow's own: MindSpore's sharpness rounds otherwise, its rotation and
shear sample another grid, its Posterize keeps at least one bit, its Solarize has no threshold above 255; the last
two also answer with an array.
"""

import math
import re
from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional

from mindspore.dataset import vision
from PIL import Image, ImageEnhance, ImageOps

from src.classification.transforms import draw_resampling
from src.errors import UserError

MAX_LEVEL = 10.0  # magnitude at which an operation's range ends
UNIFORM_ABOVE = 100.0  # a larger standard deviation means a uniform magnitude


@dataclass(frozen=True)
class Policy:
    """What a policy string says.

    Attributes:
        magnitude: strength of the operations, 10 for the end of their range.
        operations: how many are drawn for an image, with replacement.
        probability: that a drawn operation is applied.
        magnitude_std: of normal noise on the magnitude; infinite: the magnitude is uniform in [0, magnitude].
        magnitude_max: upper end of the noisy magnitude.
        increasing: whether a larger magnitude is a stronger effect in every operation.
    """

    magnitude: int = 10
    operations: int = 2
    probability: float = 0.5
    magnitude_std: float = 0.0
    magnitude_max: int = 10
    increasing: bool = False


class Part(NamedTuple):
    """One part of a policy string: the field it sets, its type and upper end, and its meaning."""

    field: str
    type: type
    high: float
    meaning: str


MAX_NUMBER = 100  # far above real use
PARTS = {
    "m": Part("magnitude", int, MAX_NUMBER, "mN magnitude"),
    "n": Part("operations", int, MAX_NUMBER, "nN operations an image"),
    "p": Part("probability", float, 1, "pX probability of each, 0 to 1"),
    "mstd": Part("magnitude_std", float, math.inf, "mstdX standard deviation of the magnitude, or inf"),
    "mmax": Part("magnitude_max", int, MAX_NUMBER, "mmaxN largest magnitude"),
    "inc": Part("increasing", int, 1, "inc0 or inc1 operations that grow with the magnitude"),
}


def parse_policy(text: str) -> Policy:
    """Read the policy that a string such as `rand-m9-mstd0.5-inc1` describes.

    Raises:
        UserError: naming the part that is wrong, and what is allowed.
    """
    name, *parts = text.split("-")
    if name != "rand":
        raise UserError(f"{text!r}: begins with {name!r}, not with 'rand'")
    settings = {}
    for part in parts:
        match = re.fullmatch(r"([a-z]+?)(inf|\d[\d.]*)", part)
        known = PARTS.get(match[1]) if match else None
        try:
            value = known.type(match[2])
        except (AttributeError, ValueError):
            value = math.nan
        if not 0 <= value <= (known.high if known else 0):
            allowed = ", ".join(entry.meaning for entry in PARTS.values())
            raise UserError(f"{text!r}: part {part!r} is none of {allowed}")
        if known.field in settings:
            raise UserError(f"{text!r}: part {part!r} says again what another part says")
        settings[known.field] = value
    if settings.get("magnitude_std", 0.0) > UNIFORM_ABOVE:
        settings["magnitude_std"] = math.inf
    settings["magnitude_max"] = settings.get("magnitude_max") or int(MAX_LEVEL)
    settings["increasing"] = bool(settings.get("increasing", False))
    return Policy(**settings)


def _transform(image, matrix, resampling, fill):
    """Transform an image so that its pixel (x, y) is the old (a x + b y + c, d x + e y + f); `matrix` is a to f."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=resampling, fillcolor=fill)


def shear_x(image, factor, resampling, fill):
    return _transform(image, (1, factor, 0, 0, 1, 0), resampling, fill)


def shear_y(image, factor, resampling, fill):
    return _transform(image, (1, 0, 0, factor, 1, 0), resampling, fill)


def translate_x(image, share, resampling, fill):
    return _transform(image, (1, 0, share * image.width, 0, 1, 0), resampling, fill)


def translate_y(image, share, resampling, fill):
    return _transform(image, (1, 0, 0, 0, 1, share * image.height), resampling, fill)


def rotate(image, degrees, resampling, fill):
    return image.rotate(degrees, resample=resampling, fillcolor=fill)


def posterize(image, bits):
    """Keep the upper `bits` of each level; 0 and less give black, as in Pillow before 13, which refuses them."""
    mask = 255 & 255 << max(0, 8 - max(0, bits))
    return image.point([level & mask for level in range(256)] * 3)


def solarize_add(image, amount):
    """Add `amount` to the levels of the darker half."""
    return image.point([min(255, level + amount) if level < 128 else level for level in range(256)] * 3)


class Operation(NamedTuple):
    """An operation and how a level, the magnitude over 10, becomes its argument.

    `argument` and, where it is another one, `increasing` take (level, sign), with sign 1 or -1 at random; None:
    there is no argument. `apply` takes (image, argument), if `is_geometric` also (resampling, fill).
    """

    apply: Callable
    argument: Optional[Callable] = None
    increasing: Optional[Callable] = None
    is_geometric: bool = False


def _enhancement(apply):
    """Build an operation whose argument 1 changes nothing; only its increasing form moves away from there."""
    return Operation(apply, lambda s, sign: s * 1.8 + 0.1, lambda s, sign: max(0.1, 1.0 + sign * (s * 0.9)))


def _posterize_bits(level):
    return int(level * 4)


def _solarize_threshold(level):
    return min(256, int(level * 256))


# in timm's order
OPERATIONS = {
    "AutoContrast": Operation(lambda image: vision.AutoContrast()(image)),
    "Equalize": Operation(lambda image: vision.Equalize()(image)),
    "Invert": Operation(lambda image: vision.Invert()(image)),
    "Rotate": Operation(rotate, lambda s, sign: sign * (s * 30), is_geometric=True),  # degrees
    "Posterize": Operation(posterize, lambda s, _: _posterize_bits(s), lambda s, _: 4 - _posterize_bits(s)),
    "Solarize": Operation(
        ImageOps.solarize, lambda s, _: _solarize_threshold(s), lambda s, _: 256 - _solarize_threshold(s)
    ),
    "SolarizeAdd": Operation(solarize_add, lambda s, _: min(128, int(s * 110))),
    "Color": _enhancement(lambda image, factor: vision.AdjustSaturation(factor)(image)),
    "Contrast": _enhancement(lambda image, factor: vision.AdjustContrast(factor)(image)),
    "Brightness": _enhancement(lambda image, factor: vision.AdjustBrightness(factor)(image)),
    "Sharpness": _enhancement(lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor)),
    "ShearX": Operation(shear_x, lambda s, sign: sign * (s * 0.3), is_geometric=True),
    "ShearY": Operation(shear_y, lambda s, sign: sign * (s * 0.3), is_geometric=True),
    # shares of the width and height
    "TranslateX": Operation(translate_x, lambda s, sign: sign * (s * 0.45), is_geometric=True),
    "TranslateY": Operation(translate_y, lambda s, sign: sign * (s * 0.45), is_geometric=True),
}
NAMES = tuple(OPERATIONS)


class RandAugment:
    """(PIL image in RGB, numpy Generator) -> PIL image of the same size.

    Args:
        policy: a policy string.
        fill: 8-bit colour of what a rotation, shear or translation uncovers.
        interpolation: of these, 'bilinear', 'bicubic', or 'random': either, drawn for each operation.

    Raises:
        UserError: for a policy string that is none.
    """

    def __init__(self, policy, fill, interpolation):
        self.policy = parse_policy(policy)
        self.fill = fill
        self.interpolation = interpolation

    def __call__(self, image, generator):
        for index in generator.integers(len(NAMES), size=self.policy.operations):
            if generator.random() < self.policy.probability:
                image = self.apply(NAMES[index], image, self.draw_magnitude(generator), generator)
        return image

    def draw_magnitude(self, generator) -> float:
        """Draw the policy's magnitude with its noise, within [0, magnitude_max]."""
        policy = self.policy
        magnitude = policy.magnitude
        if math.isinf(policy.magnitude_std):
            magnitude = generator.uniform(0, magnitude)
        elif policy.magnitude_std > 0:
            magnitude = generator.normal(magnitude, policy.magnitude_std)
        return max(0.0, min(magnitude, policy.magnitude_max))

    def apply(self, name, image, magnitude, generator):
        """Apply one operation of a given magnitude; its sign and resampling are drawn."""
        operation = OPERATIONS[name]
        if operation.argument is None:
            return operation.apply(image)
        to_argument = (self.policy.increasing and operation.increasing) or operation.argument
        argument = to_argument(magnitude / MAX_LEVEL, 1 if generator.random() < 0.5 else -1)
        if not operation.is_geometric:
            return operation.apply(image, argument)
        return operation.apply(image, argument, draw_resampling(self.interpolation, generator), self.fill)
