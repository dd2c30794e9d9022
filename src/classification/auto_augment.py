"""AutoAugment: two operations in a row, drawn from 25 pairs that a search found; timm's form of it.

Source: Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data", CVPR 2019,
https://arxiv.org/abs/1805.09501, appendix (policy for ImageNet): `original`. `v0` is the list of the TPU code of
EfficientNet, which no paper has. In the variants with an `r`, Posterize drops more bits the larger its magnitude.
Operations, ranges and policy strings are those of timm's `auto_augment_transform`; its `3a` is left out. `mstdinf`
is uniform here; timm's parser passes over it.
"""

from src.classification.operations import MAX_LEVEL, OPERATIONS, apply_operation, draw_magnitude
from src.classification.rand_augment import PARTS, parse_parts

# each row two operations, with probability and magnitude
ORIGINAL = (
    (("PosterizeOriginal", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
    (("PosterizeOriginal", 0.6, 7), ("PosterizeOriginal", 0.6, 6)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 4), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 7)),
    (("PosterizeOriginal", 0.8, 5), ("Equalize", 1.0, 2)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 8), ("PosterizeOriginal", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 2)),
    (("Equalize", 0.0, 7), ("Equalize", 0.8, 8)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 8)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 9)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 3)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
)
V0 = (
    (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
    (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
    (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
    (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
    (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
    (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
    (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
    (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
    (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
    (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
    (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
    (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
    (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
    (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
    (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
    (("Rotate", 1.0, 7), ("TranslateY", 0.8, 9)),
    (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
    (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
    (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
    (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
    (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
    (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
    (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),
    (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
    (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
)


def _with_increasing_posterize(pairs):
    """Replace each form of Posterize by the one whose effect grows with the magnitude."""
    return tuple(
        tuple(("PosterizeIncreasing" if name.startswith("Posterize") else name, *rest) for name, *rest in pair)
        for pair in pairs
    )


POLICIES = {
    "original": ORIGINAL,
    "originalr": _with_increasing_posterize(ORIGINAL),
    "v0": V0,
    "v0r": _with_increasing_posterize(V0),
}


class AutoAugment:
    """(PIL image in RGB, numpy Generator) -> PIL image of the same size.

    Args:
        policy: one of `POLICIES`, and if wanted noise on the magnitudes, as in 'original-mstd0.5'.
        fill: 8-bit colour of what a rotation, shear or translation uncovers.
        interpolation: of these, 'bilinear', 'bicubic', or 'random': either, drawn for each operation.

    Raises:
        UserError: for a policy string that is wrong.
    """

    def __init__(self, policy, fill, interpolation):
        self.pairs = POLICIES[policy.partition("-")[0]]
        self.magnitude_std = parse_parts(policy, {"mstd": PARTS["mstd"]}).get("magnitude_std", 0.0)
        self.fill, self.interpolation = fill, interpolation

    def __call__(self, image, generator):
        for name, probability, magnitude in self.pairs[generator.integers(len(self.pairs))]:
            if generator.random() < probability:
                level = draw_magnitude(magnitude, self.magnitude_std, MAX_LEVEL, generator) / MAX_LEVEL
                image = apply_operation(OPERATIONS[name], image, level, generator, self.fill, self.interpolation)
        return image
