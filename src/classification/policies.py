"""Augmentation policies by their strings: RandAugment, AutoAugment and TrivialAugment."""

from src.classification import auto_augment, trivial_augment
from src.classification.auto_augment import AutoAugment
from src.classification.rand_augment import RandAugment
from src.classification.trivial_augment import TrivialAugment
from src.errors import UserError, suggestion

POLICIES = {
    "rand": RandAugment,
    **dict.fromkeys(auto_augment.POLICIES, AutoAugment),
    trivial_augment.NAME: TrivialAugment,
}


def build_policy(text, fill, interpolation):
    """Build (PIL image, numpy Generator) -> PIL image from a policy string.

    Args:
        text: such as 'rand-m9-mstd0.5', 'original' or 'trivial'; behind a name of `POLICIES` stand its parts.
        fill: 8-bit colour of what a rotation, shear or translation uncovers.
        interpolation: of these, 'bilinear', 'bicubic', or 'random': either, drawn.

    Raises:
        UserError: naming what is wrong in the string, and what is allowed.
    """
    name = text.partition("-")[0]
    if name not in POLICIES:
        raise UserError(f"{text!r}: begins with {name!r}, not with {', '.join(POLICIES)}{suggestion(name, POLICIES)}")
    return POLICIES[name](text, fill, interpolation)
