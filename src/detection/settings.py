"""Settings of the detection task: what its YAML files may say besides the common sections."""

from dataclasses import dataclass, field
from typing import Literal, Optional, Tuple

from src.config import BackboneSettings, Config, number
from src.detection.anchors import ANCHORS, ANCHORS_PER_CELL, STRIDES
from src.detection.loss import IGNORE_IOU, SUMMED_IMAGES
from src.detection.postprocess import (
    MAX_CANDIDATES,
    MAX_DETECTIONS,
    NMS_IOU,
    OBJECTNESS_THRESHOLD,
    SCORE_THRESHOLD,
)
from src.detection.yolov3 import NECK_CHANNELS
from src.errors import UserError
from src.ghostnetv2 import MIN_INPUT_SIZE
from src.images import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class NetworkSettings(BackboneSettings):
    """Backbone and head: `channels` of the head at each scale.

    `anchors`: (width, height) in the input's pixels, a row for each of the strides 32, 16 and 8;
    `scripts/make_anchors.py` finds them for a data set.
    """

    num_classes: int = number(80, 1)
    channels: int = number(NECK_CHANNELS, 1)
    anchors: Tuple[Tuple[Tuple[float, float], ...], ...] = number(ANCHORS, 1e-3)

    def __post_init__(self):
        super().__post_init__()
        if self.output_stride != max(STRIDES):
            raise UserError(f"output_stride: {self.output_stride} is not {max(STRIDES)}, which YOLOv3's grids need")
        if [len(row) for row in self.anchors] != [ANCHORS_PER_CELL] * len(STRIDES):
            raise UserError(f"anchors: needs a row of {ANCHORS_PER_CELL} anchors for each of the strides {STRIDES}")


@dataclass(frozen=True)
class DataSettings:
    """Where the pictures are and what the network sees of them.

    `path` holds `train2017/`, `val2017/` and `annotations/instances_{train2017,val2017}.json`. `class_names` in the
    order of the category ids; empty: those of the annotation file. A picture's longer side is resized to `image_size`,
    the rest of the square is padding. `max_boxes`: places for objects in a batch; a picture with more is an error.
    An epoch is the training set `repeat` times. `workers` decode pictures; null, and at most, one a processor core.
    They are threads, with `worker_processes` processes, for the same pixels.
    """

    path: str = "data/coco"
    class_names: Tuple[str, ...] = ()
    image_size: int = number(320, MIN_INPUT_SIZE)
    max_boxes: int = number(100, 1)
    repeat: int = number(1, 1)
    mean: Tuple[float, float, float] = number(IMAGENET_MEAN, 0.0, 1.0)
    std: Tuple[float, float, float] = number(IMAGENET_STD, 1e-6, 1.0)
    workers: Optional[int] = number(None, 1)
    worker_processes: bool = False


@dataclass(frozen=True)
class AugmentSettings:
    """Arguments of `transforms.TrainTransform`.

    Photometric distortion: `brightness` in grey levels, `contrast` and `saturation` as ranges of factors, `hue` in
    degrees, each with probability 1/2. Expansion by a factor of `expand_ratio`. Crops of at least
    `crop_min_size` of either side, with a minimum IoU drawn from `crop_min_ious`; empty: none. `flip`: probability.
    """

    brightness: float = number(32.0, 0.0, 255.0)
    contrast: Tuple[float, float] = number((0.5, 1.5), 0.0)
    saturation: Tuple[float, float] = number((0.5, 1.5), 0.0)
    hue: float = number(18.0, 0.0, 180.0)
    expand_probability: float = number(0.5, 0.0, 1.0)
    expand_ratio: Tuple[float, float] = number((1.0, 2.0), 1.0)
    crop_min_ious: Tuple[float, ...] = number((0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 0.0, 1.0)
    crop_min_size: float = number(0.3, 0.01, 1.0)
    flip: float = number(0.5, 0.0, 1.0)

    def __post_init__(self):
        for name in ("contrast", "saturation", "expand_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise UserError(f"{name}: [{low}, {high}] is not in rising order")


@dataclass(frozen=True)
class LossSettings:
    """Assignment of boxes to anchors and scale of the sum, see `loss.YOLOv3Loss`."""

    positive_iou: float = number(1.0, 0.0, 1.0)
    ignore_iou: float = number(IGNORE_IOU, 0.0, 1.0)
    summed_images: int = number(SUMMED_IMAGES, 1)


@dataclass(frozen=True)
class InferenceSettings:
    """From decoded boxes to detections, see `postprocess.select_detections`.

    Of the places above `objectness`, the best `candidates` are kept; each is a box of every class above `score`. Non-
    maximum suppression at `iou` leaves the best `detections`. `scripts/predict.py` lists and draws those from
    `drawn_score` on.
    """

    objectness: float = number(OBJECTNESS_THRESHOLD, 0.0, 1.0)
    score: float = number(SCORE_THRESHOLD, 0.0, 1.0)
    candidates: int = number(MAX_CANDIDATES, 1)
    iou: float = number(NMS_IOU, 0.0, 1.0)
    detections: int = number(MAX_DETECTIONS, 1, MAX_DETECTIONS)
    drawn_score: float = number(0.3, 0.0, 1.0)


@dataclass(frozen=True)
class DetectionConfig(Config):
    """All settings of a detection run."""

    task: Literal["detection"] = "detection"
    network: NetworkSettings = field(default_factory=NetworkSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    inference: InferenceSettings = field(default_factory=InferenceSettings)
