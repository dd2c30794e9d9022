"""Settings of the segmentation task: what its YAML files may say besides the common sections."""

from dataclasses import dataclass, field
from typing import Literal, Optional, Tuple

from src.config import BackboneSettings, Config, EvaluationSettings, number
from src.errors import UserError
from src.ghostnetv2 import MIN_INPUT_SIZE, OUTPUT_STRIDES
from src.images import IMAGENET_MEAN, IMAGENET_STD
from src.segmentation.loss import IGNORED


@dataclass(frozen=True)
class NetworkSettings(BackboneSettings):
    """Backbone and DeepLabV3 head, see `deeplabv3.DeepLabV3`."""

    output_stride: Literal[OUTPUT_STRIDES] = 8
    num_classes: int = number(150, 1, IGNORED)
    aspp_channels: int = number(512, 1)
    aspp_dilations: Tuple[int, ...] = number((12, 24, 36), 1)
    auxiliary_channels: int = number(256, 1)
    dropout: float = number(0.1, 0.0, 0.99)


@dataclass(frozen=True)
class DataSettings:
    """Where pictures and masks are, see `dataset`, and what the network sees of them.

    `class_names` in index order, of the mask values 1, 2, ...; empty: numbers. `base_size` is the (long, short) side
    that a picture must fit into, in evaluation as it is, in training times a random ratio. `crop_size` is the (height,
    width) of training's input, `image_size` that of an exported file's. `workers` decode pictures; null, and at most,
    one a processor core. They are threads, with `worker_processes` processes, for the same pixels.
    """

    path: str = "data/ADEChallengeData2016"
    class_names: Tuple[str, ...] = ()
    base_size: Tuple[int, int] = number((2048, 512), MIN_INPUT_SIZE)
    crop_size: Tuple[int, int] = number((512, 512), MIN_INPUT_SIZE)
    image_size: Tuple[int, int] = number((512, 512), MIN_INPUT_SIZE)
    mean: Tuple[float, float, float] = number(IMAGENET_MEAN, 0.0, 1.0)
    std: Tuple[float, float, float] = number(IMAGENET_STD, 1e-6, 1.0)
    workers: Optional[int] = number(None, 1)
    worker_processes: bool = False

    def __post_init__(self):
        long, short = self.base_size
        if long < short:
            raise UserError(f"base_size: [{long}, {short}] is not a long and a short side")


@dataclass(frozen=True)
class AugmentSettings:
    """Resize by a random `ratio`, crop in which no class has more than `largest_share`, flip, colours."""

    ratio: Tuple[float, float] = number((0.5, 2.0), 1e-2)
    largest_share: float = number(0.75, 0.0, 1.0)
    flip: float = number(0.5, 0.0, 1.0)
    photometric: bool = True

    def __post_init__(self):
        low, high = self.ratio
        if low > high:
            raise UserError(f"ratio: [{low}, {high}] is not in rising order")


@dataclass(frozen=True)
class LossSettings:
    """Cross-entropy of the head plus `auxiliary_weight` times that of the auxiliary head."""

    auxiliary_weight: float = number(0.4, 0.0)


@dataclass(frozen=True)
class SegmentationEvaluationSettings(EvaluationSettings):
    """Whole pictures, one by one, see `inference.Segmenter`; `scales` are of data.base_size."""

    batch_size: int = number(1, 1, 1)
    size_multiple: int = number(32, 1)
    scales: Tuple[float, ...] = number((1.0,), 0.1)
    flip: bool = False

    def __post_init__(self):
        if not self.scales:
            raise UserError("scales: is empty, one is needed")


@dataclass(frozen=True)
class SegmentationConfig(Config):
    """All settings of a segmentation run."""

    task: Literal["segmentation"] = "segmentation"
    network: NetworkSettings = field(default_factory=NetworkSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    evaluation: SegmentationEvaluationSettings = field(default_factory=SegmentationEvaluationSettings)

    def __post_init__(self):
        names, classes = self.data.class_names, self.network.num_classes
        if names and len(names) != classes:
            raise UserError(f"data.class_names: has {len(names)} names, network.num_classes is {classes}")
        if self.train.batch_size < 2:
            # image pooling has one value a picture, and of one value there is no variance
            raise UserError(f"train.batch_size: {self.train.batch_size} is out of range: at least 2")
