"""Settings that every task has, in the sections of its configuration file; each default stands here once.

A task adds sections of its own by deriving from `Config`.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal, Optional, Tuple, Union

from src.architecture import MAX_DROP_PATH, MAX_WIDTH, MIN_WIDTH, DFCOptions, NetworkOptions, OutputStride
from src.errors import UserError
from src.fields import ON, bounded, changeable, check_rising
from src.mobilenetv2 import BOTTLENECKS
from src.networks import NETWORKS, choose_options
from src.runtime import DEVICE_TARGETS
from src.stages import STAGE_COUNT

MAX_BATCH_SIZE = 2**16
MAX_EPOCHS = 100_000
MAX_UPDATES = 2**25  # of a run; the list of their learning rates takes a gigabyte
MAX_COPIES = 100  # of an image in a row
MAX_FACTOR = 0.999999  # of what is kept of a moving average at an update
MAX_RATE = 1e30  # float32 ends at 3e38


@dataclass(frozen=True)
class RuntimeSettings:
    """Device and reproducibility.

    Attributes:
        device_target: 'Ascend', 'GPU' or 'CPU'; None for the best that the machine has.
        device_id: number of the device of a single process; None for the first.
        jit_level: of MindSpore's compiler; None for the one that suits the device.
        reduced_float32: whether convolutions may take HF32 (Ascend) or TF32 (GPU); None: in training only.
        graph_mode: compile the network, or run it operator by operator.
        compile_cache: whether eval.py and predict.py keep compiled graphs between runs, on CPU in graph mode.
        seed: of initial weights, order, augmentation, dropout and noise.
    """

    device_target: Optional[Literal[DEVICE_TARGETS]] = changeable(None)
    device_id: Optional[int] = bounded(None, 0, 1023, may_change=True)
    jit_level: Optional[Literal["O0", "O1", "O2"]] = changeable(None)
    reduced_float32: Optional[bool] = changeable(None)
    graph_mode: bool = True
    compile_cache: bool = changeable(True)
    seed: int = bounded(1, 0, 2**32 - 1)


@dataclass(frozen=True)
class BackboneSettings(DFCOptions):
    """The network that every task shares, and its options, see `src.networks.FAMILIES`.

    Attributes:
        name: of the variant.
        dfc_blocks: as many as the longest of them may have; GhostNet has one less.
        width: multiplier of channel counts; None for the variant's.
        attention: in GhostNet dfc, self_attention or none, in MobileNetV2 dfc, se, cbam, ca or none, in
            MobileNetV3 none; None for the variant's.
        output_stride: stride of the last maps.
        drop_path: probability of dropping a block's residual branch in training, see `BackboneOptions`; 0 is off.
    """

    name: Literal[tuple(NETWORKS)] = "ghostnetv2_1x"
    dfc_blocks: Optional[Tuple[int, ...]] = bounded(None, 0, BOTTLENECKS - 1, length=BOTTLENECKS)
    width: Optional[float] = bounded(None, MIN_WIDTH, MAX_WIDTH)
    attention: Optional[Literal["dfc", "self_attention", "se", "cbam", "ca", "none"]] = None
    output_stride: OutputStride = NetworkOptions.output_stride
    drop_path: float = bounded(NetworkOptions.drop_path, 0.0, MAX_DROP_PATH)

    def __post_init__(self):
        super().__post_init__()
        choose_options(self.name, **self.backbone_options())

    def backbone_options(self) -> dict:
        """Give the keyword arguments for `create_network`, the name not among them."""
        names = [item.name for item in dataclasses.fields(BackboneSettings)]
        return {name: getattr(self, name) for name in names if name != "name"}


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer and its constants.

    Attributes:
        momentum: of sgd and rmsprop.
        rho: of rmsprop.
        betas: of adamw.
        epsilon: of rmsprop and adamw.
        weight_decay: on weights, and with `decay_all` on biases and batch normalisation as well.
        clip_norm: largest norm of all gradients together; 0 is off.
        backbone_rate: factor on the learning rate of all but the head, in classification of all but the last layer.
        layer_decay: factor on the learning rate from one layer to the one in front of it, see `finetuning`.
    """

    name: Literal["adamw", "rmsprop", "sgd"] = "sgd"
    momentum: float = bounded(0.9, 0.0, MAX_FACTOR)
    rho: float = bounded(0.9, 0.0, MAX_FACTOR)
    betas: Tuple[float, float] = bounded((0.9, 0.999), 0.0, MAX_FACTOR)
    epsilon: float = bounded(1e-8, 1e-16, 1.0)
    weight_decay: float = bounded(1e-5, 0.0, 10.0)
    decay_all: bool = False
    clip_norm: float = bounded(0.0, 0.0, 1e6)
    backbone_rate: float = bounded(1.0, 0.0, 1e6)
    layer_decay: float = bounded(1.0, 0.01, 1.0)


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate of each update, see `src.training.schedule`.

    Attributes:
        unit: whether the rate changes with every update ('step') or every 'epoch'.
        learning_rate: at the end of the warm-up; with `reference_batch_size`, for a global batch of that size, and
            scaled linearly to the actual one.
        min_learning_rate: which no rate but the warm-up's falls below.
        warmup_epochs, warmup_steps: length of the linear warm-up, in epochs or in updates.
        warmup_learning_rate: at its beginning.
        decay_epochs, decay_rate: of `step`, the latter also of `multistep`.
        milestones: of `multistep`, in epochs.
        power: of `polynomial`.
        cooldown_epochs: at the smallest rate, behind a `cosine`.
        noise: (from, to), shares of the epochs between which the rate is noisy.
    """

    name: Literal["cosine", "polynomial", "step", "multistep", "constant"] = "cosine"
    unit: Literal["step", "epoch"] = "step"
    learning_rate: float = bounded(0.064, 0.0, MAX_RATE)
    reference_batch_size: Optional[int] = bounded(None, 1, 2**24)
    min_learning_rate: float = bounded(0.0, 0.0, MAX_RATE)
    warmup_epochs: float = bounded(0.0, 0.0, MAX_EPOCHS)
    warmup_steps: int = bounded(0, 0, MAX_UPDATES)
    warmup_learning_rate: float = bounded(1e-6, 0.0, MAX_RATE)
    decay_epochs: float = bounded(2.4, 1e-6, MAX_EPOCHS)
    decay_rate: float = bounded(0.973, 0.0, 1.0)
    milestones: Tuple[float, ...] = bounded((), 0.0, MAX_EPOCHS, length=100)
    power: float = bounded(0.9, 0.0, 100.0)
    cooldown_epochs: int = bounded(0, 0, MAX_EPOCHS)
    noise: Optional[Tuple[float, float]] = bounded(None, 0.0, 1.0)

    def __post_init__(self):
        if self.warmup_epochs > 0 and self.warmup_steps > 0:
            raise UserError("warmup_steps: and warmup_epochs cannot both be set")
        if self.cooldown_epochs > 0 and self.name != "cosine":
            raise UserError(f"cooldown_epochs: {self.cooldown_epochs} has no effect on {self.name}, only on cosine")
        if self.min_learning_rate > self.learning_rate and self.name != "constant":
            raise UserError(f"min_learning_rate: {self.min_learning_rate} is above learning_rate {self.learning_rate}")
        if self.noise is not None:
            check_rising(self, "noise")


@dataclass(frozen=True)
class TrainSettings:
    """Length of a run, its batches and its checkpoints.

    Attributes:
        epochs: of the run, the cool-down of a cosine not counted.
        batch_size: images in a batch of one device.
        accumulation_steps: batches whose gradients are averaged into one update.
        repeated_augmentation: how many differently augmented copies of an image follow each other, see `EpochSampler`;
            an epoch has as many images as without, of a part of the dataset.
        ema_decay: of the moving average of the weights, which evaluation and the best checkpoint use; 0 for none.
        sync_bn: batch normalisation over the batches of all devices.
        evaluate_every: epochs between evaluations; the last epoch has one in any case.
        save_every: updates between checkpoints inside an epoch; None saves at its end only.
        best_metric: result of an evaluation that tells which checkpoint is the best; None for the task's.
        keep_best: checkpoints to keep, the best first.
        patience: evaluations in a row without a better one, after which the run ends; None for no such end.
        pre_trained: weights file to start from.
        finetune: whether its classifier is left out, or of a detector or segmenter all but the backbone.
        freeze: what stays as it is, see `src.training.finetuning.freeze`; a number is that of stages.
        log_every: batches between lines of the log.
        summary: whether TensorBoard's event files are written, see `src.training.summary`.
        profile: batches in which operators are timed, see `src.training.profiling`; 0 for none.
        sink: whether MindSpore sends batches to the device ahead of the network, see `src.training.feed`; None: on all
            but the CPU, which has no queue for them.
    """

    epochs: int = bounded(450, 1, MAX_EPOCHS, may_change=True)
    batch_size: int = bounded(128, 1, MAX_BATCH_SIZE)
    accumulation_steps: int = bounded(1, 1, MAX_BATCH_SIZE)
    repeated_augmentation: int = bounded(1, 1, MAX_COPIES)
    ema_decay: float = bounded(0.0, 0.0, MAX_FACTOR)
    sync_bn: bool = False
    evaluate_every: int = bounded(1, 1, MAX_EPOCHS, may_change=True)
    save_every: Optional[int] = bounded(None, 1, MAX_UPDATES, may_change=True)
    best_metric: Optional[str] = None
    keep_best: int = bounded(1, 1, MAX_EPOCHS, may_change=True)
    patience: Optional[int] = bounded(None, 1, MAX_EPOCHS, may_change=True)
    pre_trained: Optional[str] = changeable(None)
    finetune: bool = changeable(False)
    freeze: Union[int, Literal["none", "stem", "backbone"]] = bounded("none", 1, STAGE_COUNT)
    log_every: int = bounded(100, 1, MAX_UPDATES, may_change=True)
    summary: bool = changeable(False)
    profile: int = bounded(0, 0, 1000, may_change=True)
    sink: Optional[bool] = changeable(None)

    def __post_init__(self):
        if self.finetune and self.pre_trained is None:
            raise UserError("finetune: takes part of a checkpoint, which pre_trained names")


@dataclass(frozen=True)
class PrecisionSettings:
    """Mixed precision, see `src.training.precision.mix_precision`, and the scale of its loss.

    Attributes:
        amp: level of mixed precision.
        loss_scaling: 'auto' is dynamic with float16 and none without, as bfloat16 has float32's range.
        loss_scale: the first one, or the fixed one.
    """

    amp: Literal["O0", "O2", "O3", "auto", "bf16"] = "O0"
    loss_scaling: Literal["auto", "none", "fixed", "dynamic"] = "auto"
    loss_scale: float = bounded(65536.0, 1.0, 2.0**24)


@dataclass(frozen=True)
class EvaluationSettings:
    """Batch of evaluation; the last one may be smaller, no image is dropped."""

    batch_size: int = bounded(64, 1, MAX_BATCH_SIZE, may_change=True)


DECAYS = ["cosine", "polynomial", "step", "multistep"]  # schedules whose rate falls
TRAINS_BACKBONE = ["none", "stem", *range(1, STAGE_COUNT + 1)]
# {setting: what it needs to have an effect: any one of these, each {other setting: its values}}
NEEDS = {
    "runtime.jit_level": [{"runtime.graph_mode": [True]}],
    "runtime.reduced_float32": [{"runtime.device_target": [None, "Ascend", "GPU"]}],
    "optimizer.momentum": [{"optimizer.name": ["sgd", "rmsprop"]}],
    "optimizer.rho": [{"optimizer.name": ["rmsprop"]}],
    "optimizer.betas": [{"optimizer.name": ["adamw"]}],
    "optimizer.epsilon": [{"optimizer.name": ["rmsprop", "adamw"]}],
    "optimizer.decay_all": [{"optimizer.weight_decay": ON}],
    "optimizer.backbone_rate": [{"train.freeze": TRAINS_BACKBONE}],
    "optimizer.layer_decay": [{"train.freeze": TRAINS_BACKBONE}],
    "schedule.unit": [
        {"schedule.name": DECAYS},
        *({f"schedule.{name}": ON} for name in ("warmup_epochs", "warmup_steps", "noise")),
    ],
    "schedule.min_learning_rate": [{"schedule.name": DECAYS}],
    "schedule.warmup_learning_rate": [{"schedule.warmup_epochs": ON}, {"schedule.warmup_steps": ON}],
    "schedule.decay_epochs": [{"schedule.name": ["step"]}],
    "schedule.decay_rate": [{"schedule.name": ["step", "multistep"]}],
    "schedule.milestones": [{"schedule.name": ["multistep"]}],
    "schedule.power": [{"schedule.name": ["polynomial"]}],
    "precision.loss_scale": [
        {"precision.loss_scaling": ["fixed", "dynamic"]},
        {"precision.loss_scaling": ["auto"], "precision.amp": ["O2", "O3", "auto"]},
    ],
}


@dataclass(frozen=True)
class Config:
    """Sections that every task has; a task derives from this and adds `network`, `data` and more.

    Attributes:
        needs: see `NEEDS`; settings that have no effect are warned of where a run begins.
    """

    needs = NEEDS

    task: str = "classification"
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    precision: PrecisionSettings = field(default_factory=PrecisionSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


def with_class_names(config, class_names):
    """Complete settings by the class names that a dataset has told; () leaves them as they are."""
    if not class_names:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, class_names=tuple(class_names)))
