"""Settings of the detection task: what its YAML files may say besides the common sections."""

import math
from dataclasses import dataclass, field
from typing import Literal, Tuple

from src.architecture import MIN_INPUT_SIZE
from src.data.photometric import PhotometricOptions
from src.data.settings import MAX_IMAGE_SIZE, MAX_INPUT_SIZE, PipelineSettings
from src.detection.anchors import ANCHORS, ANCHORS_PER_CELL, STRIDES
from src.detection.postprocess import DetectionLimits
from src.detection.yolov3 import BOX_OUTPUTS
from src.errors import UserError
from src.fields import ON, bounded, changeable, check_rising
from src.runtime import check_memory
from src.settings import MAX_BATCH_SIZE, NEEDS, BackboneSettings, Config


@dataclass(frozen=True)
class NetworkSettings(BackboneSettings):
    """Backbone and head: `channels` of the head at each scale.

    `anchors`: (width, height) in the input's pixels, a row for each of the strides 32, 16 and 8;
    `scripts/make_anchors.py` finds them for a dataset.
    """

    num_classes: int = bounded(80, 1, 100_000)
    channels: int = bounded(96, 1, 4096)
    anchors: Tuple[Tuple[Tuple[float, float], ...], ...] = bounded(ANCHORS, 1e-3, MAX_IMAGE_SIZE, length=100)

    def __post_init__(self):
        super().__post_init__()
        if self.output_stride != max(STRIDES):
            raise UserError(f"output_stride: {self.output_stride} is not {max(STRIDES)}, which YOLOv3's grids need")
        if [len(row) for row in self.anchors] != [ANCHORS_PER_CELL] * len(STRIDES):
            raise UserError(f"anchors: needs a row of {ANCHORS_PER_CELL} anchors for each of the strides {STRIDES}")


@dataclass(frozen=True)
class DataSettings(PipelineSettings):
    """Where the images are and what the network sees of them.

    Attributes:
        path: holds `train2017/`, `val2017/` and `annotations/instances_{train2017,val2017}.json`; class names are in
            the order of the category ids.
        image_size: to which an image's longer side is resized; the rest of the square is padding.
        max_boxes: places for objects in a batch; an image with more is an error.
        repeat: times that an epoch is the training set.
        filter_empty_gt: whether images without annotations are left out of training.
    """

    path: str = changeable("data/coco")
    image_size: int = bounded(320, MIN_INPUT_SIZE, MAX_INPUT_SIZE)
    max_boxes: int = bounded(100, 1, 10_000)
    repeat: int = bounded(1, 1, 1000)
    filter_empty_gt: bool = False


@dataclass(frozen=True)
class AugmentSettings(PhotometricOptions):
    """Photometric distortion, expansion, crop and flip, see `transforms.DetectionAugmentation`.

    Attributes:
        expand_probability, expand_ratio: of an expansion, and the range of its factor.
        crop_min_ious: minimum IoUs to draw from, 0 for any crop with the centre of a box; empty for no crops.
        crop_min_size: least share of either side in a crop.
        flip: probability of a horizontal flip.
    """

    expand_probability: float = bounded(0.5, 0.0, 1.0)
    expand_ratio: Tuple[float, float] = bounded((1.0, 2.0), 1.0, 10.0)
    crop_min_ious: Tuple[float, ...] = bounded((0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.0), 0.0, 1.0, length=100)
    crop_min_size: float = bounded(0.3, 0.01, 1.0)
    flip: float = bounded(0.5, 0.0, 1.0)

    def __post_init__(self):
        super().__post_init__()
        check_rising(self, "expand_ratio")


@dataclass(frozen=True)
class LossSettings:
    """Assignment of boxes to anchors and scale of the sum, see `loss.YOLOv3Loss`.

    Attributes:
        positive_iou: IoU above which an anchor in a box's cell is positive though it is not the best.
        ignore_iou: IoU above which a place without a box is no background.
        summed_images: images whose losses are added up; the recipe has 24 on each process.
    """

    positive_iou: float = bounded(0.5, 0.0, 1.0)
    ignore_iou: float = bounded(0.5, 0.0, 1.0)
    summed_images: int = bounded(24, 1, MAX_BATCH_SIZE)


@dataclass(frozen=True)
class InferenceSettings(DetectionLimits):
    """From decoded boxes to detections; `scripts/predict.py` lists and draws those from `drawn_score` on."""

    drawn_score: float = bounded(0.3, 0.0, 1.0)


@dataclass(frozen=True)
class DetectionConfig(Config):
    """All settings of a detection run."""

    needs = {
        **NEEDS,
        "augment.expand_ratio": [{"augment.expand_probability": ON}],
        "augment.crop_min_size": [{"augment.crop_min_ious": ON}],
    }

    task: Literal["detection"] = "detection"
    network: NetworkSettings = field(default_factory=NetworkSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    inference: InferenceSettings = field(default_factory=InferenceSettings)

    def __post_init__(self):
        size, classes = self.data.image_size, self.network.num_classes
        places = ANCHORS_PER_CELL * sum(math.ceil(size / stride) ** 2 for stride in STRIDES)
        for section in ("train", "evaluation"):
            batch_size = getattr(self, section).batch_size
            check_memory(f"{section}.batch_size", "images", batch_size, 3, size, size)
            check_memory(f"{section}.batch_size", "predictions", batch_size, places, BOX_OUTPUTS + classes)
        check_memory("data.max_boxes", "overlaps with anchors", self.train.batch_size, self.data.max_boxes, places)
