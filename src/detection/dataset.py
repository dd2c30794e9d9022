"""Pictures of `Annotations` as data pipelines of fixed shapes.

All randomness of a sample comes from (seed, epoch, index), so it depends neither on the number of workers nor on
where a run was resumed.
"""

import os

import mindspore.dataset as ds
import numpy as np
from mindspore.dataset import vision

from src.detection.transforms import whole_view
from src.errors import UserError
from src.images import load_image

NO_OBJECT = -1  # label of the places behind a picture's last box


def check_box_counts(annotations, max_boxes):
    """Raise `UserError` if a picture has more objects than a batch has places for."""
    for picture in annotations.pictures:
        count = len(picture.objects()[1])
        if count > max_boxes:
            raise UserError(
                f"{annotations.path}: images id {picture.id} has {count} boxes, data.max_boxes is {max_boxes}"
            )


def load_picture(picture):
    """The PIL image of a `Picture`, whose size must be what the annotations say."""
    image = load_image(picture.path)
    if image.size != (picture.width, picture.height):
        sizes = "{}x{}, its annotations say {}x{}".format(*image.size, picture.width, picture.height)
        raise UserError(f"{picture.path}: is {sizes}")
    return image


class LoadTraining:
    """Pipeline operation: (key (epoch, index), number of the picture) -> (image, boxes, labels).

    The image is uint8 (size, size, 3), boxes are float32 (max_boxes, 4), xyxy in its pixels, labels int32
    (max_boxes,); behind the last object boxes are 0 and labels `NO_OBJECT`.

    Args:
        pictures: of `Annotations`.
        transform: `TrainTransform`.
        max_boxes: places for objects.
        seed: of the run.
    """

    def __init__(self, pictures, transform, max_boxes, seed):
        self.pictures, self.transform, self.max_boxes, self.seed = pictures, transform, max_boxes, seed

    def __call__(self, key, number):
        epoch, index = (int(part) for part in key)
        picture = self.pictures[int(number)]
        generator = np.random.default_rng((self.seed, epoch, index))
        pixels, found, classes = self.transform(load_picture(picture), *picture.objects(), generator)
        boxes = np.zeros((self.max_boxes, 4), np.float32)
        labels = np.full(self.max_boxes, NO_OBJECT, np.int32)
        boxes[: len(found)], labels[: len(found)] = found, classes
        return pixels, boxes, labels


class LoadEvaluation:
    """Pipeline operation: (key, number of the picture) -> (image uint8 (size, size, 3), key)."""

    def __init__(self, pictures, size, fill):
        self.pictures, self.size, self.fill = pictures, size, fill

    def __call__(self, key, number):
        image = load_picture(self.pictures[int(number)])
        return whole_view(*image.size, self.size).read(image, self.fill), key


def build_dataset(samples, load, columns, batch_size, mean, std, workers=None, processes=False):
    """Batches of `columns`, the first of which, the image, becomes float32 (B, 3, size, size), normalised.

    The last batch may be short.

    Args:
        samples: `Samples`, whose entries are numbers of pictures.
        load: `LoadTraining` or `LoadEvaluation`.
        columns: names of what `load` gives; the first is "image".
        batch_size: of this process.
        mean, std: of each channel, for values in [0, 1].
        workers: threads that decode, at most one a processor core; None: just that.
        processes: whether processes decode instead of threads.
    """
    cores = os.cpu_count() or 1  # MindSpore refuses more workers than that
    workers = min(workers or cores, cores)
    dataset = ds.GeneratorDataset(samples, ["key", "number"], shuffle=False, num_parallel_workers=1)
    dataset = dataset.map(
        load, ["key", "number"], columns, num_parallel_workers=workers, python_multiprocessing=processes
    )
    normalise = vision.Normalize([255 * value for value in mean], [255 * value for value in std])
    dataset = dataset.map([normalise, vision.HWC2CHW()], "image", num_parallel_workers=workers)
    return dataset.project(columns).batch(batch_size)
