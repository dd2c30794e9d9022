"""RandAugment: a few operations drawn from fifteen, with noise on their strength; timm's form of it.

Source: Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2019,
https://arxiv.org/abs/1909.13719, section 3. Operations, ranges and policy strings are those of timm's
`rand_augment_transform`, which trained the published weights; its transform sets (`t...`) are left out. `mstdinf`
is uniform here, as timm documents it; timm's parser passes over it.
"""

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from src.classification.operations import MAX_LEVEL, OPERATIONS, apply_operation, draw_magnitude
from src.errors import UserError

UNIFORM_ABOVE = 100.0  # a larger standard deviation means a uniform magnitude
# in timm's order
NAMES = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast"),
    *("Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY"),
)


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


def parse_parts(text, parts) -> dict:
    """Read {field: value} from the parts of a policy string behind its name.

    Args:
        text: the policy string, such as 'rand-m9-mstd0.5'.
        parts: {beginning: `Part`} of those that are allowed.

    Raises:
        UserError: naming the part that is wrong, and what is allowed.
    """
    settings = {}
    for part in text.split("-")[1:]:
        match = re.fullmatch(r"([a-z]+?)(inf|\d[\d.]*)", part)
        known = parts.get(match[1]) if match else None
        try:
            value = known.type(match[2])
        except (AttributeError, ValueError):
            value = math.nan
        if not 0 <= value <= (known.high if known else 0):
            allowed = ", ".join(entry.meaning for entry in parts.values())
            raise UserError(f"{text!r}: part {part!r} is none of {allowed}")
        if known.field in settings:
            raise UserError(f"{text!r}: part {part!r} says again what another part says")
        settings[known.field] = value
    return settings


def parse_policy(text: str) -> Policy:
    """Read the policy that a string such as `rand-m9-mstd0.5-inc1` describes; raises what `parse_parts` raises."""
    settings = parse_parts(text, PARTS)
    if settings.get("magnitude_std", 0.0) > UNIFORM_ABOVE:
        settings["magnitude_std"] = math.inf
    settings["magnitude_max"] = settings.get("magnitude_max") or int(MAX_LEVEL)
    settings["increasing"] = bool(settings.get("increasing", False))
    return Policy(**settings)


class RandAugment:
    """(PIL image in RGB, numpy Generator) -> PIL image of the same size.

    Args:
        policy: a policy string that begins with rand.
        fill: 8-bit colour of what a rotation, shear or translation uncovers.
        interpolation: of these, 'bilinear', 'bicubic', or 'random': either, drawn for each operation.

    Raises:
        UserError: for a policy string that is wrong.
    """

    def __init__(self, policy, fill, interpolation):
        self.policy = parse_policy(policy)
        self.fill = fill
        self.interpolation = interpolation

    def __call__(self, image, generator):
        policy = self.policy
        for index in generator.integers(len(NAMES), size=policy.operations):
            if generator.random() < policy.probability:
                magnitude = draw_magnitude(policy.magnitude, policy.magnitude_std, policy.magnitude_max, generator)
                image = self.apply(NAMES[index], image, magnitude, generator)
        return image

    def apply(self, name, image, magnitude, generator):
        """Apply one operation of a given magnitude; its sign and resampling are drawn."""
        operation = OPERATIONS[name]
        if self.policy.increasing:
            operation = OPERATIONS.get(f"{name}Increasing", operation)
        return apply_operation(operation, image, magnitude / MAX_LEVEL, generator, self.fill, self.interpolation)
