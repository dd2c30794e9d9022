"""TrivialAugment: one operation of a uniformly drawn strength; torchvision's `TrivialAugmentWide`.

Source: Müller & Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021,
https://arxiv.org/abs/2103.10158, section 3, in the form with wide ranges. Operations and strengths are torchvision's.
Known differences: fill and interpolation are given, as for the other policies; torchvision's defaults are black and
nearest. Its strengths are float32, which makes the middle translation one of 15 pixels instead of 16, and its shears
are the tangent of an arctangent, which rounds a few pixels otherwise by one level.
"""

from PIL import ImageOps

from src.classification import operations
from src.classification.operations import Operation, apply_operation
from src.errors import UserError

NAME = "trivial"
STRENGTHS = 31  # evenly spaced over an operation's range


def translate_x(image, pixels, resampling, fill):
    return operations.transform(image, (1, 0, -pixels, 0, 1, 0), resampling, fill)


def translate_y(image, pixels, resampling, fill):
    return operations.transform(image, (1, 0, 0, 0, 1, -pixels), resampling, fill)


def _shear(level, sign):
    return sign * (level * 0.99)


def _enhance(level, sign):
    return 1 + sign * (level * 0.99)


def _translate_pixels(level, sign):
    return sign * int(level * 32)


# in torchvision's order
OPERATIONS = {
    "Identity": Operation(lambda image: image),
    "ShearX": Operation(operations.shear_x, _shear, is_geometric=True),
    "ShearY": Operation(operations.shear_y, _shear, is_geometric=True),
    "TranslateX": Operation(translate_x, _translate_pixels, is_geometric=True),
    "TranslateY": Operation(translate_y, _translate_pixels, is_geometric=True),
    "Rotate": Operation(operations.rotate, lambda s, sign: sign * (s * 135), is_geometric=True),  # degrees
    "Brightness": Operation(operations.brightness, _enhance),
    "Color": Operation(operations.color, _enhance),
    "Contrast": Operation(operations.contrast, _enhance),
    "Sharpness": Operation(operations.sharpness, _enhance),
    "Posterize": Operation(operations.posterize, lambda s, _: 8 - round(s * 6)),
    "Solarize": Operation(ImageOps.solarize, lambda s, _: 255 - 255 * s),
    "AutoContrast": Operation(operations.auto_contrast),
    "Equalize": Operation(operations.equalize),
}
NAMES = tuple(OPERATIONS)


class TrivialAugment:
    """(PIL image in RGB, numpy Generator) -> PIL image of the same size.

    Args:
        policy: 'trivial', which has no parts.
        fill: 8-bit colour of what a rotation, shear or translation uncovers.
        interpolation: of these, 'bilinear', 'bicubic', or 'random': either, drawn for each image.

    Raises:
        UserError: for another policy string.
    """

    def __init__(self, policy, fill, interpolation):
        if policy != NAME:
            raise UserError(f"{policy!r}: {NAME} has no parts")
        self.fill, self.interpolation = fill, interpolation

    def __call__(self, image, generator):
        name, level = NAMES[generator.integers(len(NAMES))], generator.integers(STRENGTHS) / (STRENGTHS - 1)
        return self.apply(name, image, level, generator)

    def apply(self, name, image, level, generator):
        """Apply one operation of a given level, the share of its range; its sign and resampling are drawn."""
        return apply_operation(OPERATIONS[name], image, level, generator, self.fill, self.interpolation)
