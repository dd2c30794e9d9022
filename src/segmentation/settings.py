"""Settings of the segmentation task: what its YAML files may say besides the common sections."""

from dataclasses import dataclass, field
from typing import Literal, Tuple

from src.architecture import MIN_INPUT_SIZE, OutputStride
from src.data.settings import MAX_IMAGE_SIZE, MAX_INPUT_SIZE, PipelineSettings
from src.errors import UserError
from src.fields import bounded, changeable, check_rising
from src.runtime import check_memory
from src.segmentation.transforms import IGNORED
from src.settings import BackboneSettings, Config, EvaluationSettings


@dataclass(frozen=True)
class NetworkSettings(BackboneSettings):
    """Backbone and DeepLabV3 head, see `deeplabv3.DeepLabV3`."""

    output_stride: OutputStride = 8
    num_classes: int = bounded(150, 1, IGNORED)
    aspp_channels: int = bounded(512, 1, 4096)
    aspp_dilations: Tuple[int, ...] = bounded((12, 24, 36), 1, 1000, length=100)
    auxiliary_channels: int = bounded(256, 1, 4096)
    dropout: float = bounded(0.1, 0.0, 0.99)


@dataclass(frozen=True)
class DataSettings(PipelineSettings):
    """Where images and masks are, see `dataset`, and what the network sees of them.

    Attributes:
        path: folder of the dataset; class names are in the order of the mask values 1, 2, ..., empty for numbers.
        base_size: (long, short) side that an image must fit into, in training times a random ratio.
        crop_size: (height, width) of training's input.
        image_size: (height, width) of an exported file's input.
    """

    path: str = changeable("data/ADEChallengeData2016")
    base_size: Tuple[int, int] = bounded((2048, 512), MIN_INPUT_SIZE, MAX_IMAGE_SIZE)
    crop_size: Tuple[int, int] = bounded((512, 512), MIN_INPUT_SIZE, MAX_INPUT_SIZE)
    image_size: Tuple[int, int] = bounded((512, 512), MIN_INPUT_SIZE, MAX_INPUT_SIZE)

    def __post_init__(self):
        long, short = self.base_size
        if long < short:
            raise UserError(f"base_size: [{long}, {short}] is not a long and a short side")


@dataclass(frozen=True)
class AugmentSettings:
    """Resize by a random `ratio`, crop in which no class has more than `largest_share`, flip, colours."""

    ratio: Tuple[float, float] = bounded((0.5, 2.0), 1e-2, 10.0)
    largest_share: float = bounded(0.75, 0.0, 1.0)
    flip: float = bounded(0.5, 0.0, 1.0)
    photometric: bool = True

    def __post_init__(self):
        check_rising(self, "ratio")


@dataclass(frozen=True)
class LossSettings:
    """Cross-entropy of the head plus `auxiliary_weight` times that of the auxiliary head.

    Attributes:
        average: over which pixels: all, those without a label adding 0, or the counted ones.
    """

    auxiliary_weight: float = bounded(0.4, 0.0, 100.0)
    average: Literal["all", "counted"] = "counted"


@dataclass(frozen=True)
class SegmentationEvaluationSettings(EvaluationSettings):
    """Whole images, one by one, see `segmenter.Segmenter`; `scales` are of data.base_size."""

    batch_size: int = bounded(1, 1, 1, may_change=True)
    size_multiple: int = bounded(32, 1, 1024)
    scales: Tuple[float, ...] = bounded((1.0,), 0.1, 10.0, length=100)
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
            # image pooling has one value an image, and of one value there is no variance
            raise UserError(f"train.batch_size: {self.train.batch_size} is out of range: at least 2")
        self._check_memory()

    def _check_memory(self):
        batch_size, crop = self.train.batch_size, self.data.crop_size
        check_memory("train.batch_size", "images", batch_size, 3, *crop)
        check_memory("train.batch_size", "logits", batch_size, self.network.num_classes, *crop)
        for name, factors in (("augment.ratio", self.augment.ratio), ("evaluation.scales", self.evaluation.scales)):
            check_memory(name, "resized images", 1, 3, *(round(side * max(factors)) for side in self.data.base_size))
