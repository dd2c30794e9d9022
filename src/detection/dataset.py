"""Loading of the images of `Annotations`, in fixed shapes.

All randomness of a sample comes from (seed, epoch, index), so it depends neither on the number of workers nor on
where a run was resumed.
"""

import numpy as np

from src.data.images import load_image
from src.detection.transforms import whole_view
from src.errors import UserError

NO_OBJECT = -1  # label of the places behind an image's last box


def check_box_counts(annotations, max_boxes):
    """Raise `UserError` if an image has more objects than a batch has places for."""
    for image in annotations.images:
        count = len(image.objects()[1])
        if count > max_boxes:
            raise UserError(
                f"{annotations.path}: images id {image.id} has {count} boxes, data.max_boxes is {max_boxes}"
            )


def choose_training_images(annotations, filter_empty_gt):
    """Choose the images to train on.

    Args:
        annotations: `Annotations`.
        filter_empty_gt: whether to leave out those without annotations, as MMDetection does; one whose annotations
            are all crowds or without an area stays, as background.

    Returns:
        Their indices (N,), and a tuple of lines about what is left out.
    """
    indices = np.arange(len(annotations.images))
    if not filter_empty_gt:
        return indices, ()
    kept = indices[[len(image.boxes) > 0 for image in annotations.images]]
    left_out = len(indices) - len(kept)
    if left_out == 0:
        return kept, ()
    note = f"{annotations.path}: {left_out} of {len(indices)} images have no annotations and are left out of training"
    return kept, (f"{note} (data.filter_empty_gt)",)


def load_annotated(annotated, exif_rotation):
    """Load the PIL image of an `AnnotatedImage`, turned or not, whose size must be what the annotations say."""
    image = load_image(annotated.path, exif_rotation=exif_rotation)
    if image.size != (annotated.width, annotated.height):
        sizes = "{}x{}, its annotations say {}x{}".format(*image.size, annotated.width, annotated.height)
        raise UserError(f"{annotated.path}: is {sizes}")
    return image


class LoadTrainingImage:
    """(key (epoch, index), number of the image) -> (image, boxes, labels).

    The image is uint8 (size, size, 3), boxes are float32 (max_boxes, 4), xyxy in its pixels, labels int32
    (max_boxes,); behind the last object boxes are 0 and labels `NO_OBJECT`.

    Args:
        images: of `Annotations`.
        transform: `DetectionAugmentation`.
        max_boxes: places for objects.
        seed: of the run.
        exif_rotation: see `load_image`.
    """

    def __init__(self, images, transform, max_boxes, seed, exif_rotation):
        self.images, self.transform, self.max_boxes, self.seed = images, transform, max_boxes, seed
        self.exif_rotation = exif_rotation

    def source(self, key, number):
        """Name the file of a sample."""
        return self.images[int(number)].path

    def __call__(self, key, number):
        epoch, index = (int(part) for part in key)
        annotated = self.images[int(number)]
        generator = np.random.default_rng((self.seed, epoch, index))
        image = load_annotated(annotated, self.exif_rotation)
        pixels, found, classes = self.transform(image, *annotated.objects(), generator)
        boxes = np.zeros((self.max_boxes, 4), np.float32)
        labels = np.full(self.max_boxes, NO_OBJECT, np.int32)
        boxes[: len(found)], labels[: len(found)] = found, classes
        return pixels, boxes, labels


class LoadEvaluationImage:
    """(key, number of the image) -> (image uint8 (size, size, 3), key)."""

    def __init__(self, images, size, fill, exif_rotation):
        self.images, self.size, self.fill, self.exif_rotation = images, size, fill, exif_rotation

    def source(self, key, number):
        """Name the file of a sample."""
        return self.images[int(number)].path

    def __call__(self, key, number):
        image = load_annotated(self.images[int(number)], self.exif_rotation)
        return whole_view(*image.size, self.size).read(image, self.fill), key
