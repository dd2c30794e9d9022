"""Loading of the pictures of `Annotations`, in fixed shapes.

All randomness of a sample comes from (seed, epoch, index), so it depends neither on the number of workers nor on
where a run was resumed.
"""

import numpy as np

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
    """(key (epoch, index), number of the picture) -> (image, boxes, labels).

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
    """(key, number of the picture) -> (image uint8 (size, size, 3), key)."""

    def __init__(self, pictures, size, fill):
        self.pictures, self.size, self.fill = pictures, size, fill

    def __call__(self, key, number):
        image = load_picture(self.pictures[int(number)])
        return whole_view(*image.size, self.size).read(image, self.fill), key
