"""How an image is evaluated: resized, then its centre cropped. Needs no MindSpore."""

from PIL import Image

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
CROP_MODES = ("center", "squash", "border")


class CenterCrop:
    """Resize, and crop the central `size` x `size`: PIL image in RGB -> PIL image. It uses no randomness.

    The rules are timm's `transforms_imagenet_eval`, that of center also torchvision's.

    Args:
        size: side of the result in pixels.
        resize: in pixels, at least `size`; see `crop_mode`.
        interpolation: 'bilinear' or 'bicubic'.
        crop_mode: 'center' resizes the shorter side to `resize`, 'squash' both sides, 'border' the longer one.
        mean: of each channel, in [0, 1]: the colour around what border leaves smaller than `size`.
    """

    def __init__(self, size, resize, interpolation, crop_mode, mean):
        self.size, self.resize, self.resampling = size, resize, RESAMPLING[interpolation]
        self.crop_mode, self.fill = crop_mode, tuple(round(255 * value) for value in mean)

    def __call__(self, image, generator=None):
        scaled = scale_sides(image.size, self.resize, self.crop_mode)
        if scaled != image.size:
            image = image.resize(scaled, self.resampling)
        canvas = Image.new("RGB", (self.size, self.size), self.fill)
        canvas.paste(image, tuple(place_centre(side, self.size) for side in image.size))
        return canvas


def scale_sides(sides, resize, crop_mode):
    """Compute (width, height) of the resized image from that of the image, for each of `CROP_MODES`."""
    if crop_mode == "squash":
        return resize, resize
    if crop_mode == "border":
        ratio = max(sides) / resize
        return tuple(max(1, round(side / ratio)) for side in sides)
    short = min(sides)
    return tuple(int(resize * side / short) for side in sides)


def place_centre(side, size):
    """Compute where a side begins in its central part of `size` pixels, below 0 if it is longer."""
    return (size - side) // 2 if side < size else -round((side - size) / 2)
