"""Settings of the classification task: what its YAML files may say besides the common sections."""

from dataclasses import dataclass, field
from typing import Literal, Optional, Tuple, Union

from src.architecture import IMAGENET_CLASSES, MIN_INPUT_SIZE, NetworkOptions
from src.classification.center_crop import CROP_MODES
from src.classification.policies import build_policy
from src.data.settings import MAX_CLASSES, MAX_IMAGE_SIZE, MAX_INPUT_SIZE, PipelineSettings
from src.errors import UserError
from src.fields import ON, bounded, changeable, check_rising
from src.runtime import check_memory
from src.settings import MAX_EPOCHS, NEEDS, BackboneSettings, Config, EvaluationSettings


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
        list_cache: folder for the lists of image files, so that the next run need not list unchanged folders.
        image_size: side of the network's input.
        eval_resize: evaluation resizes to this and crops the centre, see `ClassificationEvaluationSettings`.
        interpolation: of that resize.
        eval_decoder: pillow gives timm's pixels, mindspore those of the official MindSpore port.
        broken_images: in training: fatal, or skip, which takes the next image.
    """

    path: str = changeable("data/imagenet")
    class_index: Literal["folders", "imagenet"] = "folders"
    val_labels: Optional[str] = changeable(None)
    list_cache: Optional[str] = changeable(None)
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
    """Random resized crop (share of the area, width over height), flips, policy, jitter, grey, blur, erasing.

    `flip`, horizontal, `vertical_flip`, `grayscale` and `gaussian_blur` are probabilities. `interpolation` of the
    crop and of the policy; random draws bilinear or bicubic, null is data.interpolation. `policy` is one
    such as rand-m9-mstd0.5, original or trivial, see `policies.build_policy`; as in timm it excludes `color_jitter`.
    With `erase_probability` a rectangle of the normalised image is overwritten: normal noise
    (pixel), one normal colour (rand) or the mean colour (const). `mixup` and `cutmix` are the parameters of their beta
    distributions, 0 is off; `mixup_probability` is that of a batch to be mixed, by either, and
    `mixup_switch_probability` that of CutMix where both are on; `cutmix_minmax`, see `MixDraws`, switches CutMix on,
    too; no batch is mixed from epoch `mixup_off_epoch` on, counted from 0, unless that is 0.
    """

    crop_scale: Tuple[float, float] = bounded((0.08, 1.0), 0.0, 1.0)
    crop_ratio: Tuple[float, float] = bounded((3 / 4, 4 / 3), 1e-3, 1e3)
    flip: float = bounded(0.5, 0.0, 1.0)
    vertical_flip: float = bounded(0.0, 0.0, 1.0)
    color_jitter: float = bounded(0.0, 0.0, 1.0)
    grayscale: float = bounded(0.0, 0.0, 1.0)
    gaussian_blur: float = bounded(0.0, 0.0, 1.0)
    interpolation: Optional[Literal["bilinear", "bicubic", "random"]] = None
    policy: Optional[str] = None
    erase_probability: float = bounded(0.0, 0.0, 1.0)
    erase_mode: Literal["pixel", "rand", "const"] = "pixel"
    mixup: float = bounded(0.0, 0.0, 100.0)
    cutmix: float = bounded(0.0, 0.0, 100.0)
    cutmix_minmax: Optional[Tuple[float, float]] = bounded(None, 0.0, 1.0)
    mixup_probability: float = bounded(1.0, 0.0, 1.0)
    mixup_switch_probability: float = bounded(0.5, 0.0, 1.0)
    mixup_off_epoch: int = bounded(0, 0, MAX_EPOCHS)

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed, so that their labels become targets."""
        return self.mixup > 0 or self.cutmix > 0 or self.cutmix_minmax is not None

    def __post_init__(self):
        if self.policy is not None:
            try:
                build_policy(self.policy, None, "bilinear")
            except UserError as error:
                raise UserError(f"policy: {error}") from None
            if self.color_jitter > 0:
                raise UserError(f"color_jitter: must be 0 with a policy, not {self.color_jitter}")
        check_rising(self, "crop_scale", "crop_ratio")
        if self.cutmix_minmax is not None:
            check_rising(self, "cutmix_minmax")


@dataclass(frozen=True)
class LossSettings:
    """The loss, see `src.classification.loss`, and the teacher of a distillation.

    Attributes:
        name: softmax and cross-entropy, or a sigmoid and cross-entropy for each class.
        label_smoothing: with s, the true class gets 1 - s and s is spread evenly over all classes.
        class_weights: a number a class; balanced: images / (classes x images of the class), in the training set.
        teacher: weights file of the teacher; None: there is none.
        teacher_weight: its share of the loss.
        temperature: that the logits of both are divided by for it.
    """

    name: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"
    label_smoothing: float = bounded(0.1, 0.0, 0.99)
    class_weights: Union[Tuple[float, ...], Literal["balanced"], None] = bounded(None, 1e-6, 1e6, length=MAX_CLASSES)
    teacher: Optional[str] = changeable(None)
    teacher_weight: float = bounded(0.5, 0.0, 1.0)
    temperature: float = bounded(4.0, 0.1, 100.0)


@dataclass(frozen=True)
class ClassificationEvaluationSettings(EvaluationSettings):
    """What of an image the network sees, and how often.

    Attributes:
        crop_mode: center: the shorter side is resized to data.eval_resize; squash: both sides; border: the longer one,
            and the mean colour around it. The centre is cropped in each. Prediction and exported files do the same.
        flip: whether logits are averaged over an image and its mirror image; not in prediction.
    """

    crop_mode: Literal[CROP_MODES] = changeable("center")
    flip: bool = changeable(False)


MIXES = [{f"augment.{name}": ON} for name in ("mixup", "cutmix", "cutmix_minmax")]  # any of these


@dataclass(frozen=True)
class ClassificationConfig(Config):
    """All settings of a classification run."""

    needs = {
        **NEEDS,
        "data.class_names": [{"data.class_index": ["folders"]}],
        "augment.erase_mode": [{"augment.erase_probability": ON}],
        "augment.cutmix": [{"augment.cutmix_minmax": [None]}],
        "augment.mixup_probability": MIXES,
        "augment.mixup_switch_probability": [{"augment.mixup": ON, **other} for other in MIXES[1:]],
        "augment.mixup_off_epoch": MIXES,
        "loss.teacher": [{"loss.teacher_weight": ON}],
        "loss.teacher_weight": [{"loss.teacher": ON}],
        "loss.temperature": [{"loss.teacher": ON, "loss.teacher_weight": ON}],
    }

    task: Literal["classification"] = "classification"
    network: NetworkSettings = field(default_factory=NetworkSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    evaluation: ClassificationEvaluationSettings = field(default_factory=ClassificationEvaluationSettings)

    def __post_init__(self):
        size, crop_mode = self.data.image_size, self.evaluation.crop_mode
        if self.data.eval_decoder == "mindspore" and crop_mode != "center":
            raise UserError(f"evaluation.crop_mode: must be center with data.eval_decoder mindspore, not {crop_mode}")
        for section in ("train", "evaluation"):
            batch_size = getattr(self, section).batch_size
            check_memory(f"{section}.batch_size", "images", batch_size, 3, size, size)
            check_memory(f"{section}.batch_size", "logits", batch_size, self.network.num_classes)
        weights, classes = self.loss.class_weights, self.network.num_classes
        if isinstance(weights, tuple) and len(weights) != classes:
            raise UserError(f"loss.class_weights: has {len(weights)} numbers, network.num_classes is {classes}")
