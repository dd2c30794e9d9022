"""The class of each pixel of a whole image of any size and aspect.

Decisions, where published evaluations differ:

- A graph is compiled for each input size, so sizes must be few. The shorter side of the input is exact, the longer one
  is rounded to a multiple, at 32 and a shorter side of 512 by 3 % at most; the alternative, padding, lets invalid
  pixels into the means of squeeze-and-excitation and image pooling.
- Logits go from the network's stride to the size of the image in one bilinear step, not two, and in strips of rows:
  all logits of a large image at once, 150 classes of float32, would take many times the network's own memory.
"""

import numpy as np

from src.architecture import MIN_INPUT_SIZE
from src.data.images import normalise
from src.errors import UserError
from src.inference.prediction import softmax
from src.segmentation.transforms import fit_size, resize_image

STRIP_VALUES = 2**23  # of float32, in a strip of rows: 32 MiB


class Segmenter:
    """Image uint8 (H, W, 3) -> classes uint8, (H, W) or another size.

    Args:
        network: array (N, 3, h, w) -> [logits (N, num_classes, h', w')]; its attribute `input_size` is the (height,
            width) that it was made for, None for any.
        num_classes: of the logits.
        data: `DataSettings` of segmentation: normalisation and the size that an image must fit into.
        evaluation: `SegmentationEvaluationSettings`: scales whose probabilities are averaged, the mirrored image, the
            multiple to which the longer side is rounded.

    Raises:
        UserError: if a network of one input size shall see several.
    """

    def __init__(self, network, num_classes, data, evaluation):
        self.network, self.num_classes, self.data, self.evaluation = network, num_classes, data, evaluation
        self.fixed_size = network.input_size
        scales = evaluation.scales
        if self.fixed_size and tuple(scales) != (1.0,):
            raise UserError(
                f"evaluation.scales: an exported file has one input size, {list(scales)} needs a checkpoint"
            )

    def __call__(self, image, size=None):
        maps = []
        for input_size in self.input_sizes(image.shape[:2]):
            batch = normalise(resize_image(image, input_size)[None], self.data.mean, self.data.std)
            maps.append(self.logits(batch))
            if self.evaluation.flip:
                maps.append(self.logits(batch[..., ::-1])[..., ::-1])
        return classify(maps, size or image.shape[:2])

    def input_sizes(self, size):
        """Give (height, width) of each input for an image of the given size."""
        if self.fixed_size:
            return [self.fixed_size]
        sizes = []
        for scale in self.evaluation.scales:
            long, short = (side * scale for side in self.data.base_size)
            sizes.append(round_size(fit_size(size, long, short), self.evaluation.size_multiple, round(short)))
        return sizes

    def logits(self, batch):
        """Compute the logits (num_classes, h, w) of one image (1, 3, H, W)."""
        logits = self.network(np.ascontiguousarray(batch))[0][0]
        if logits.ndim != 3:
            raise UserError(f"the network gives logits {logits.shape} for an image, not (classes, height, width)")
        if len(logits) != self.num_classes:
            raise UserError(f"the network gives {len(logits)} classes, the settings say {self.num_classes}")
        return logits


def round_size(size, multiple, exact):
    """Round each side of (height, width) to a multiple, unless it is `exact`."""
    smallest = -(-MIN_INPUT_SIZE // multiple) * multiple
    return tuple(side if side == exact else max(smallest, round(side / multiple) * multiple) for side in size)


def classify(maps, size):
    """Choose the most probable class of each pixel, by the mean of the maps' probabilities.

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
            strips = [softmax(strip, 1) for strip in strips]
        classes[top : top + rows] = sum(strips[1:], strips[0]).argmax(axis=1)
    return classes


def resize_rows(logits, size, rows):
    """Resize logits (classes, h, w) bilinearly to (height, width), some rows of it only: (rows, classes, width)."""
    count, height, width = logits.shape
    lines = logits.transpose(1, 0, 2).reshape(height, -1)  # (classes, h, w) -> (h, classes * w)
    strip = bilinear_weights(height, size[0])[rows] @ lines
    return strip.reshape(-1, count, width) @ bilinear_weights(width, size[1]).T  # (rows, classes, w) x (w, width)


def bilinear_weights(size_in, size_out):
    """Build float32 (size_out, size_in) that resizes an axis as PyTorch does, unaligned and without antialiasing."""
    position = np.clip((np.arange(size_out) + 0.5) * size_in / size_out - 0.5, 0, size_in - 1)
    first = np.floor(position).astype(np.int64)
    fraction = position - first
    weights = np.zeros((size_out, size_in))
    index = np.arange(size_out)
    weights[index, first] = 1 - fraction
    weights[index, np.minimum(first + 1, size_in - 1)] += fraction
    return weights.astype(np.float32)
