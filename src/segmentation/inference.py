"""The class of each pixel of a whole picture of any size and aspect.

Decisions, where published evaluations differ:

- A graph is compiled for each input size, so sizes must be few. The shorter side of the input is exact, the longer one
  is rounded to a multiple, at 32 and a shorter side of 512 by 3 % at most; the alternative, padding, lets invalid
  pixels into the means of squeeze-and-excitation and image pooling.
- Logits go from the network's stride to the size of the picture in one bilinear step, not two, and in strips of rows:
  all logits of a large picture at once, 150 classes of float32, would take many times the network's own memory.
"""

import numpy as np
from mindspore import Tensor

from src.compile_cache import run_cached
from src.errors import UserError
from src.ghostnetv2 import MIN_INPUT_SIZE
from src.images import normalise
from src.inference import ExportedNetwork
from src.segmentation.transforms import fit_size, resize_image

STRIP_VALUES = 2**23  # of float32, in a strip of rows: 32 MiB


class Segmenter:
    """Picture uint8 (H, W, 3) -> classes uint8, (H, W) or another size.

    Args:
        network: images (N, 3, h, w) -> logits (N, num_classes, h', w').
        num_classes: of the logits.
        mean, std: of each channel, for values in [0, 1].
        base_size: (long, short) side that the picture must fit into.
        image_size: (height, width) of every input instead, for an exported file.
        multiple: to which the longer side is rounded.
        scales: of `base_size`; the probabilities of several are averaged.
        flip: whether to average with the mirrored picture.

    Raises:
        UserError: if an exported file shall see several sizes.
    """

    def __init__(self, network, num_classes, mean, std, base_size, image_size, multiple=32, scales=(1.0,), flip=False):
        self.network, self.num_classes = network, num_classes
        self.mean, self.std = mean, std
        self.base_size, self.multiple, self.scales, self.flip = base_size, multiple, scales, flip
        self.fixed_size = image_size if isinstance(network, ExportedNetwork) else None
        if self.fixed_size and tuple(scales) != (1.0,):
            raise UserError(
                f"evaluation.scales: an exported file has one input size, {list(scales)} needs a checkpoint"
            )
        network.set_train(False)

    def __call__(self, image, size=None):
        maps = []
        for input_size in self.input_sizes(image.shape[:2]):
            batch = normalise(resize_image(image, input_size)[None], self.mean, self.std)
            maps.append(self.logits(batch))
            if self.flip:
                maps.append(self.logits(batch[..., ::-1])[..., ::-1])
        return classify(maps, size or image.shape[:2])

    def input_sizes(self, size):
        """(height, width) of each input for a picture of the given size."""
        if self.fixed_size:
            return [self.fixed_size]
        sizes = []
        for scale in self.scales:
            long, short = (side * scale for side in self.base_size)
            sizes.append(round_size(fit_size(size, long, short), self.multiple, round(short)))
        return sizes

    def logits(self, batch):
        """Logits (num_classes, h, w) of one picture (1, 3, H, W)."""
        logits = run_cached(self.network, Tensor(np.ascontiguousarray(batch))).asnumpy()[0]
        if len(logits) != self.num_classes:
            raise UserError(f"the network gives {len(logits)} classes, the settings say {self.num_classes}")
        return logits


def round_size(size, multiple, exact):
    """(height, width) with each side rounded to a multiple, unless it is `exact`."""
    smallest = -(-MIN_INPUT_SIZE // multiple) * multiple
    return tuple(side if side == exact else max(smallest, round(side / multiple) * multiple) for side in size)


def classify(maps, size):
    """The most probable class of each pixel, by the mean of the maps' probabilities.

    Args:
        maps: list of logits float32 (classes, h, w), of any sizes.
        size: (height, width) of the result.

    Returns:
        uint8 (height, width).
    """
    height, width = size
    rows = max(1, STRIP_VALUES // (len(maps[0]) * width))
    classes = np.empty(size, np.uint8)
    for top in range(0, height, rows):
        strips = [resize_rows(logits, size, slice(top, top + rows)) for logits in maps]
        if len(strips) > 1:
            strips = [softmax(strip) for strip in strips]
        classes[top : top + rows] = sum(strips[1:], strips[0]).argmax(axis=1)
    return classes


def resize_rows(logits, size, rows):
    """Some rows of logits (classes, h, w) that are resized bilinearly to (height, width): (rows, classes, width)."""
    count, height, width = logits.shape
    lines = logits.transpose(1, 0, 2).reshape(height, -1)  # (classes, h, w) -> (h, classes * w)
    strip = bilinear_weights(height, size[0])[rows] @ lines
    return strip.reshape(-1, count, width) @ bilinear_weights(width, size[1]).T  # (rows, classes, w) x (w, width)


def softmax(logits):
    """Probabilities over axis 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def bilinear_weights(size_in, size_out):
    """float32 (size_out, size_in) that resizes one axis as PyTorch does without aligned corners or antialiasing."""
    position = np.clip((np.arange(size_out) + 0.5) * size_in / size_out - 0.5, 0, size_in - 1)
    first = np.floor(position).astype(np.int64)
    fraction = position - first
    weights = np.zeros((size_out, size_in))
    index = np.arange(size_out)
    weights[index, first] = 1 - fraction
    weights[index, np.minimum(first + 1, size_in - 1)] += fraction
    return weights.astype(np.float32)
