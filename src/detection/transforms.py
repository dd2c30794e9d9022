"""Images and boxes as the network sees them: expansion, crop, resize, flip, photometric distortion, padding.

Source: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, section 3.6, with the ranges of the light
YOLOv3-MobileNetV2 set-up for 320x320 pixels, where every box of an image must have the minimum IoU with a crop, and
colours are distorted last, those that an expansion has filled in among them.

Expansion, crop, resize and flip are first put together into one `View`, which maps boxes exactly, and the pixels are
read once. Difference from the reference: Pillow's antialiased bilinear resize.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from src.data.photometric import distort
from src.detection.boxes import box_iou, clip_boxes, has_centre

CROP_ATTEMPTS = 50  # for each draw of a minimum IoU
CROP_ASPECTS = (0.5, 2.0)  # height over width


@dataclass(frozen=True)
class View:
    """A window of an image in the square input of the network.

    The window keeps its aspect and fills the input's longer side from the top left corner; the rest is padding.

    Args:
        left, top, width, height: of the window in the image's pixels; it may reach beyond the image.
        size: side of the input in pixels.
        flip: whether the window is mirrored left to right.
    """

    left: int
    top: int
    width: int
    height: int
    size: int
    flip: bool = False

    @property
    def scaled(self):
        """(width, height) of the window in the input."""
        scale = self.size / max(self.width, self.height)
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    @property
    def corners(self):
        """(left, top, right, bottom) in the image."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def to_input(self, boxes):
        """Map boxes (M, 4), xyxy, from the image's pixels to the input's."""
        columns, rows = self.scaled
        boxes = (boxes - np.tile((self.left, self.top), 2)) * np.tile((columns / self.width, rows / self.height), 2)
        return self._mirror(boxes, columns)

    def to_image(self, boxes):
        """Map boxes (M, 4), xyxy, from the input's pixels to the image's."""
        columns, rows = self.scaled
        boxes = self._mirror(boxes, columns)
        return boxes * np.tile((self.width / columns, self.height / rows), 2) + np.tile((self.left, self.top), 2)

    def _mirror(self, boxes, columns):
        if not self.flip:
            return boxes
        left, top, right, bottom = boxes.T
        return np.stack((columns - right, top, columns - left, bottom), axis=1)

    def read(self, image, fill, change=None):
        """Read the pixels uint8 (size, size, 3) of the view.

        Args:
            image: PIL image, RGB.
            fill: colour of the padding and of the window where it lies beyond the image.
            change: function of the window's pixels, uint8 (h, w, 3); the padding stays as it is.
        """
        columns, rows = self.scaled
        canvas = np.full((self.size, self.size, 3), fill, np.uint8)
        (left, right), across = _overlap(self.left, self.width, image.width, columns)
        (top, bottom), down = _overlap(self.top, self.height, image.height, rows)
        if left < right and top < bottom:
            source = (across[0], down[0], across[1], down[1])
            canvas[top:bottom, left:right] = image.resize(
                (right - left, bottom - top), Image.Resampling.BILINEAR, source
            )
        window = canvas[:rows, :columns]
        if change is not None:
            window[:] = change(window)
        if self.flip:
            window[:] = window[:, ::-1].copy()
        return canvas


def _overlap(start, length, limit, pixels):
    """Find where a window overlaps the image along an axis: whole pixels of the input, and their place in the image.

    Args:
        start, length: of the window in the image's pixels.
        limit: length of the image.
        pixels: length of the window in the input.
    """
    first = -(-(max(0, start) - start) * pixels // length)  # rounded up
    last = (min(limit, start + length) - start) * pixels // length
    source = [min(max(0.0, start + place * length / pixels), float(limit)) for place in (first, last)]
    return (first, last), source


def whole_view(width, height, size):
    """Make the view of a whole image."""
    return View(0, 0, width, height, size)


def expand(view, ratio, generator):
    """Enlarge the window of a view by a factor from the range `ratio`, the old one anywhere in it."""
    factor = generator.uniform(*ratio)
    width, height = int(view.width * factor), int(view.height * factor)
    left = view.left - int(generator.uniform(0, width - view.width))
    top = view.top - int(generator.uniform(0, height - view.height))
    return replace(view, left=left, top=top, width=width, height=height)


def crop(view, boxes, min_ious, min_size, generator):
    """Choose a smaller window for a view, at random, or keep its own.

    One of "whole window" and the minimum IoUs is drawn, then windows until one has at least this IoU with every box
    and the centre of one inside; after `CROP_ATTEMPTS` failures it is drawn again.

    Args:
        view: `View`.
        boxes: (M, 4), xyxy, in the image's pixels; none: any window will do.
        min_ious: to choose from.
        min_size: least share of the window's width and height.
        generator: numpy Generator.
    """
    while True:
        choice = int(generator.integers(len(min_ious) + 1))
        if choice == len(min_ious):
            return view
        for _ in range(CROP_ATTEMPTS):
            window = _draw_window(view, min_size, generator)
            if window is None:
                continue
            if len(boxes) == 0:
                return window
            if box_iou(window.corners, boxes).min() >= min_ious[choice] and has_centre(window.corners, boxes).any():
                return window


def _draw_window(view, min_size, generator):
    """Draw a window inside the view's; None if its aspect is not wanted."""
    width = int(view.width * generator.uniform(min_size, 1))
    height = int(view.height * generator.uniform(min_size, 1))
    if min(width, height) < 1 or not CROP_ASPECTS[0] <= height / width <= CROP_ASPECTS[1]:
        return None
    left = view.left + int(generator.integers(view.width - width + 1))
    top = view.top + int(generator.integers(view.height - height + 1))
    return replace(view, left=left, top=top, width=width, height=height)


class DetectionAugmentation:
    """(PIL image, boxes (M, 4) xyxy, labels (M,), numpy Generator) -> (uint8 (size, size, 3), boxes, labels).

    The boxes of the result are float32 in the input's pixels: those whose centre is in the crop, cut off at its edge.

    Args:
        size: side of the input.
        fill: colour of padding and expansion.
        settings: `AugmentSettings` of detection.
    """

    def __init__(self, size, fill, settings):
        self.size, self.fill, self.settings = size, fill, settings

    def __call__(self, image, boxes, labels, generator):
        view = self.draw_view(image.width, image.height, boxes, generator)
        pixels = view.read(image, self.fill, lambda window: distort(window, generator, self.settings))
        kept = has_centre(view.corners, boxes)
        boxes = view.to_input(clip_boxes(boxes[kept], view.corners))
        return pixels, boxes.astype(np.float32), labels[kept]

    def draw_view(self, width, height, boxes, generator):
        """Draw a random view of an image with these boxes."""
        settings, view = self.settings, whole_view(width, height, self.size)
        if generator.random() < settings.expand_probability:
            view = expand(view, settings.expand_ratio, generator)
        view = crop(view, boxes, settings.crop_min_ious, settings.crop_min_size, generator)
        return replace(view, flip=bool(generator.random() < settings.flip))
