"""How an image is evaluated: resized, then its centre cropped. Needs no MindSpore."""

from PIL import Image

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class CenterCrop:
    """Resize the shorter side to `resize` pixels, crop the central `size` x `size`: PIL image -> PIL image.

    The rule is torchvision's and timm's. It uses no randomness.
    """

    def __init__(self, size, resize, interpolation):
        self.size, self.resize, self.resampling = size, resize, RESAMPLING[interpolation]

    def __call__(self, image, generator=None):
        width, height = image.size
        short = min(width, height)
        scaled = (int(self.resize * width / short), int(self.resize * height / short))
        if scaled != image.size:
            image = image.resize(scaled, self.resampling)
        left, top = (round((side - self.size) / 2) for side in image.size)
        return image.crop((left, top, left + self.size, top + self.size))
