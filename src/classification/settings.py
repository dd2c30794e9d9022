"""Settings of the classification task: what its YAML files may say besides the common sections."""

from dataclasses import dataclass, field
from typing import Literal, Optional, Tuple

from src.architecture import IMAGENET_CLASSES, MIN_INPUT_SIZE, NetworkOptions
from src.classification.rand_augment import parse_policy
from src.data.settings import MAX_CLASSES, MAX_IMAGE_SIZE, MAX_INPUT_SIZE, PipelineSettings
from src.errors import UserError
from src.fields import bounded, changeable, check_rising
from src.runtime import check_memory
from src.settings import BackboneSettings, Config


@dataclass(frozen=True)
class NetworkSettings(BackboneSettings):
    """Backbone and classifier; `dropout` is in front of the classifier."""

    num_classes: int = bounded(IMAGENET_CLASSES, 1, MAX_CLASSES)
    dropout: float = bounded(NetworkOptions.dropout, 0.0, 0.99)


@dataclass(frozen=True)
class DataSettings(PipelineSettings):
    """Where the images are and what the network sees of them.

    Attributes:
        path: folder of the dataset.
        class_index: folders: `class_names` in index order, or if these are empty the sorted folder names of the
            split; imagenet: the 1000 WordNet ids, of which the folders may be a part.
        val_labels: list of labels for a validation folder without class folders, see `imagenet.read_labels`.
        image_size: side of the network's input.
        eval_resize: evaluation resizes the shorter side to this and crops the centre.
        interpolation: of that resize.
        eval_decoder: pillow gives timm's pixels, mindspore those of the official MindSpore port.
        broken_images: in training: fatal, or skip, which takes the next image.
    """

    path: str = changeable("data/imagenet")
    class_index: Literal["folders", "imagenet"] = "folders"
    val_labels: Optional[str] = changeable(None)
    image_size: int = bounded(224, MIN_INPUT_SIZE, MAX_INPUT_SIZE)
    eval_resize: int = bounded(256, 1, MAX_IMAGE_SIZE)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    eval_decoder: Literal["pillow", "mindspore"] = "pillow"
    broken_images: Literal["fatal", "skip"] = "fatal"

    def __post_init__(self):
        if self.eval_resize < self.image_size:
            raise UserError(f"eval_resize: {self.eval_resize} is smaller than image_size {self.image_size}")


@dataclass(frozen=True)
class AugmentSettings:
    """Random resized crop (share of the area, width over height), horizontal flip, RandAugment, jitter, erasing.

    `interpolation` of the crop and of RandAugment; random draws bilinear or bicubic, null is data.interpolation.
    `rand_augment` is a policy such as rand-m9-mstd0.5, see `rand_augment.parse_policy`; as in timm it excludes
    `color_jitter`. With `erase_probability` a rectangle of the normalised image is overwritten: normal noise
    (pixel), one normal colour (rand) or the mean colour (const).
    """

    crop_scale: Tuple[float, float] = bounded((0.08, 1.0), 0.0, 1.0)
    crop_ratio: Tuple[float, float] = bounded((3 / 4, 4 / 3), 1e-3, 1e3)
    flip: float = bounded(0.5, 0.0, 1.0)
    color_jitter: float = bounded(0.0, 0.0, 1.0)
    interpolation: Optional[Literal["bilinear", "bicubic", "random"]] = None
    rand_augment: Optional[str] = None
    erase_probability: float = bounded(0.0, 0.0, 1.0)
    erase_mode: Literal["pixel", "rand", "const"] = "pixel"

    def __post_init__(self):
        if self.rand_augment is not None:
            try:
                parse_policy(self.rand_augment)
            except UserError as error:
                raise UserError(f"rand_augment: {error}") from None
            if self.color_jitter > 0:
                raise UserError(f"color_jitter: must be 0 with rand_augment, not {self.color_jitter}")
        check_rising(self, "crop_scale", "crop_ratio")


@dataclass(frozen=True)
class LossSettings:
    """Cross-entropy; with smoothing s, the true class gets 1 - s and s is spread evenly over all classes."""

    label_smoothing: float = bounded(0.1, 0.0, 0.99)


@dataclass(frozen=True)
class ClassificationConfig(Config):
    """All settings of a classification run."""

    task: Literal["classification"] = "classification"
    network: NetworkSettings = field(default_factory=NetworkSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    loss: LossSettings = field(default_factory=LossSettings)

    def __post_init__(self):
        size = self.data.image_size
        for section in ("train", "evaluation"):
            batch_size = getattr(self, section).batch_size
            check_memory(f"{section}.batch_size", "images", batch_size, 3, size, size)
            check_memory(f"{section}.batch_size", "logits", batch_size, self.network.num_classes)
