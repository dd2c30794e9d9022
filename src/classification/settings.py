"""Settings of the classification task: what its YAML files may say besides the common sections."""

from dataclasses import dataclass, field
from typing import Literal, Optional, Tuple

from src.classification.rand_augment import parse_policy
from src.config import BackboneSettings, Config, number
from src.errors import UserError
from src.ghostnetv2 import MIN_INPUT_SIZE
from src.images import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class NetworkSettings(BackboneSettings):
    """Backbone and classifier; `dropout` is in front of the classifier."""

    num_classes: int = number(1000, 1)
    dropout: float = number(0.2, 0.0, 0.99)


@dataclass(frozen=True)
class DataSettings:
    """Where the pictures are and what the network sees of them.

    `class_index` folders: `class_names` in index order, or if these are empty the sorted folder names of the
    split; imagenet: the 1000 WordNet ids, of which the folders may be a part. `val_labels` names a list of labels
    for a validation folder without class folders, see `imagenet.read_labels`. `image_size` is the side of the
    network's input; evaluation resizes the shorter side to `eval_resize` and crops the centre.
    `eval_decoder` pillow gives timm's pixels, mindspore those of the official MindSpore port.
    `workers` decode pictures; null, and at most, one a processor core. They are threads, with `worker_processes`
    processes, for the same pixels. `broken_images` of training: fatal, or skip, which takes the next picture.
    """

    path: str = "data/imagenet"
    class_index: Literal["folders", "imagenet"] = "folders"
    class_names: Tuple[str, ...] = ()
    val_labels: Optional[str] = None
    image_size: int = number(224, MIN_INPUT_SIZE)
    eval_resize: int = number(256, 1)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    eval_decoder: Literal["pillow", "mindspore"] = "pillow"
    mean: Tuple[float, float, float] = number(IMAGENET_MEAN, 0.0, 1.0)
    std: Tuple[float, float, float] = number(IMAGENET_STD, 1e-6, 1.0)
    workers: Optional[int] = number(None, 1)
    worker_processes: bool = False
    broken_images: Literal["fatal", "skip"] = "fatal"

    def __post_init__(self):
        if self.eval_resize < self.image_size:
            raise UserError(f"eval_resize: {self.eval_resize} is smaller than image_size {self.image_size}")


@dataclass(frozen=True)
class AugmentSettings:
    """Random resized crop (share of the area, width over height), horizontal flip, RandAugment, jitter, erasing.

    `interpolation` of the crop and of RandAugment; random draws bilinear or bicubic, null is data.interpolation.
    `rand_augment` is a policy such as rand-m9-mstd0.5, see `rand_augment.parse_policy`; as in timm it excludes
    `color_jitter`. With `erase_probability` a rectangle of the normalised picture is overwritten: normal noise
    (pixel), one normal colour (rand) or the mean colour (const).
    """

    crop_scale: Tuple[float, float] = number((0.08, 1.0), 0.0, 1.0)
    crop_ratio: Tuple[float, float] = number((3 / 4, 4 / 3), 1e-3)
    flip: float = number(0.5, 0.0, 1.0)
    color_jitter: float = number(0.0, 0.0, 1.0)
    interpolation: Optional[Literal["bilinear", "bicubic", "random"]] = None
    rand_augment: Optional[str] = None
    erase_probability: float = number(0.0, 0.0, 1.0)
    erase_mode: Literal["pixel", "rand", "const"] = "pixel"

    def __post_init__(self):
        if self.rand_augment is not None:
            try:
                parse_policy(self.rand_augment)
            except UserError as error:
                raise UserError(f"rand_augment: {error}") from None
            if self.color_jitter > 0:
                raise UserError(f"color_jitter: must be 0 with rand_augment, not {self.color_jitter}")
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise UserError(f"{name}: [{low}, {high}] is not in rising order")


@dataclass(frozen=True)
class LossSettings:
    """Cross-entropy; with smoothing s, the true class gets 1 - s and s is spread evenly over all classes."""

    label_smoothing: float = number(0.1, 0.0, 0.99)


@dataclass(frozen=True)
class ClassificationConfig(Config):
    """All settings of a classification run."""

    task: Literal["classification"] = "classification"
    network: NetworkSettings = field(default_factory=NetworkSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    loss: LossSettings = field(default_factory=LossSettings)
