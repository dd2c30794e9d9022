"""Settings: YAML files with inheritance, plus command-line overrides, checked into frozen dataclasses.

A file may name another as `base:` and then states only what differs. A task adds sections of its own by
deriving from `Config`. Whatever is wrong ends in one line: where it stands, which key, what is allowed.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional, Tuple, Union, get_args, get_origin, get_type_hints

import yaml

from src.errors import UserError, nearest
from src.ghostnetv2 import (
    BLOCKS,
    DFC_TARGETS,
    DOWN_SAMPLINGS,
    GATE_POSITIONS,
    GATES,
    OUTPUT_STRIDES,
    UP_SAMPLINGS,
    VARIANTS,
)
from src.runtime import DEVICE_TARGETS, LEVELS


def number(default, low=None, high=None):
    """Field with a default, restricted to low <= value <= high; for a tuple, each of its items."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class RuntimeSettings:
    """Device and reproducibility. `device_target` null: the best that the machine has.

    `compile_cache`: eval.py and predict.py keep compiled graphs between runs, see `src.compile_cache`; on
    CPU in graph mode.
    """

    device_target: Optional[Literal[DEVICE_TARGETS]] = None
    graph_mode: bool = True
    compile_cache: bool = True
    seed: int = number(1, 0, 2**32 - 1)


@dataclass(frozen=True)
class BackboneSettings:
    """Arguments of `src.ghostnetv2.create_network` that every task shares."""

    name: Literal[tuple(VARIANTS)] = "ghostnetv2_1x"
    dfc_blocks: Optional[Tuple[int, ...]] = number(None, 0, len(BLOCKS) - 1)
    dfc_target: Literal[DFC_TARGETS] = "expressiveness"
    dfc_kernel_size: int = number(5, 1)
    dfc_down_sampling: Literal[DOWN_SAMPLINGS] = "avg_pool"
    dfc_up_sampling: Literal[UP_SAMPLINGS] = "nearest"
    dfc_gate: Literal[GATES] = "sigmoid"
    dfc_gate_position: Literal[GATE_POSITIONS] = "before_up_sampling"
    output_stride: Literal[OUTPUT_STRIDES] = 32

    def __post_init__(self):
        if self.dfc_kernel_size % 2 == 0:
            raise UserError(f"dfc_kernel_size: {self.dfc_kernel_size} is not odd")

    def backbone_options(self) -> dict:
        """Keyword arguments for `create_network`, the name not among them."""
        names = [item.name for item in dataclasses.fields(BackboneSettings)]
        options = {name: getattr(self, name) for name in names if name != "name"}
        if self.dfc_blocks is None:  # the variant decides
            del options["dfc_blocks"]
        return options


@dataclass(frozen=True)
class OptimizerSettings:
    """`momentum` belongs to sgd and rmsprop, `rho` to rmsprop, `betas` to adamw, `epsilon` to both of these."""

    name: Literal["adamw", "rmsprop", "sgd"] = "sgd"
    momentum: float = number(0.9, 0.0, 1.0)
    rho: float = number(0.9, 0.0, 1.0)
    betas: Tuple[float, float] = number((0.9, 0.999), 0.0, 1.0)
    epsilon: float = number(1e-8, 0.0)
    weight_decay: float = number(1e-5, 0.0)
    clip_norm: float = number(0.0, 0.0)  # of all gradients together; 0 is off


@dataclass(frozen=True)
class ScheduleSettings:
    """Learning rate by step, see `src.optim.build_schedule`.

    With `reference_batch_size`, `learning_rate` is for a global batch of that size and scales with the actual one.
    """

    name: Literal["cosine", "polynomial", "step", "multistep", "constant"] = "cosine"
    unit: Literal["step", "epoch"] = "step"
    learning_rate: float = number(0.064, 0.0)
    reference_batch_size: Optional[int] = number(None, 1)
    min_learning_rate: float = number(0.0, 0.0)
    warmup_epochs: float = number(0.0, 0.0)
    warmup_steps: int = number(0, 0)
    warmup_learning_rate: float = number(1e-6, 0.0)
    decay_epochs: float = number(2.4, 1e-6)
    decay_rate: float = number(0.973, 0.0, 1.0)
    milestones: Tuple[float, ...] = number((), 0.0)  # of multistep, in epochs
    power: float = number(0.9, 0.0)  # of polynomial
    cooldown_epochs: int = number(0, 0)  # behind a cosine
    noise: Optional[Tuple[float, float]] = number(None, 0.0, 1.0)  # from and to, shares of the epochs

    def __post_init__(self):
        if self.warmup_epochs > 0 and self.warmup_steps > 0:
            raise UserError("warmup_steps: and warmup_epochs cannot both be set")


@dataclass(frozen=True)
class TrainSettings:
    """Length of a run and its batch on each device; evaluation every `evaluate_every` epochs and at the end.

    The gradients of `accumulation_steps` batches are averaged into one update. `ema_decay`: of the moving average of
    the weights, which evaluation and the best checkpoint then use; 0 for none. `sync_bn`: batch normalisation
    over the batches of all devices. `save_every`: updates between checkpoints inside an epoch; null saves at its end
    only. `keep_best`: checkpoints to keep, the best first. `log_every`: batches between lines of the log.
    """

    epochs: int = number(450, 1)
    batch_size: int = number(128, 1)
    accumulation_steps: int = number(1, 1)
    ema_decay: float = number(0.0, 0.0, 0.999999)
    sync_bn: bool = False
    evaluate_every: int = number(1, 1)
    save_every: Optional[int] = number(None, 1)
    keep_best: int = number(1, 1)
    log_every: int = number(100, 1)


@dataclass(frozen=True)
class PrecisionSettings:
    """Mixed precision, see `src.precision.mix_precision`, and the scale of its loss.

    `loss_scaling` auto: dynamic with mixed precision, none without. `loss_scale`: the first one, or the fixed one.
    """

    amp: Literal[LEVELS] = "O0"
    loss_scaling: Literal["auto", "none", "fixed", "dynamic"] = "auto"
    loss_scale: float = number(65536.0, 1.0)


@dataclass(frozen=True)
class EvaluationSettings:
    """Batch of evaluation; the last one may be smaller, no image is dropped."""

    batch_size: int = number(64, 1)


@dataclass(frozen=True)
class Config:
    """Sections that every task has; a task derives from this and adds `network`, `data` and more."""

    task: str = "classification"
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    precision: PrecisionSettings = field(default_factory=PrecisionSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


@dataclass(frozen=True)
class Value:
    """A value and where it was written: 'FILE:LINE', or the command line."""

    content: Any
    source: str


def load_config(path, schemas, overrides=(), text=None) -> Config:
    """Read `path`, its bases and `overrides` into the settings class of its task.

    Args:
        path: YAML file.
        schemas: {task name: subclass of Config}.
        overrides: (dotted key, value, source) in order, such as ("train.epochs", 3, "command line").
        text: YAML that another kind of file, `path`, holds.

    Raises:
        UserError: for whatever is wrong in them.
    """
    tree = read_yaml(Path(path), text=text)
    for key, content, source in overrides:
        *sections, leaf = key.split(".")
        mapping = {leaf: to_tree(content, source)}
        for section in reversed(sections):
            mapping = {section: Value(mapping, source)}
        tree = merge(tree, Value(mapping, source))
    task = tree.content.get("task", Value("classification", str(path)))
    if task.content not in schemas:
        allowed = ", ".join(schemas)
        raise UserError(
            f"{task.source}: task: {task.content!r} is not one of {allowed}{nearest(task.content, schemas)}"
        )
    return build_settings(schemas[task.content], tree, "")


def parse_override(text: str):
    """('section.key', value, 'command line') from 'section.key=value'; the value is read as YAML."""
    key, separator, value = text.partition("=")
    if not separator or not key or any(not part for part in key.split(".")):
        raise UserError(f"command line: {text!r} is not of the form section.key=value")
    try:
        return key, yaml.safe_load(value), "command line"
    except yaml.YAMLError:
        raise UserError(f"command line: {key}: {value!r} is not valid YAML") from None


def dump_config(config: Config) -> str:
    """YAML text of all settings, which `load_config` reads back to an equal object."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True)


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def read_yaml(path: Path, seen=(), text=None) -> Value:
    """The merged tree of `path` and its bases; each mapping is {key: Value}, each leaf knows its line."""
    if path.resolve() in seen:
        raise UserError(f"{seen[-1]}: base: {path} is its own base")
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        origin = f"{seen[-1]}: base: " if seen else ""
        raise UserError(f"{origin}{path}: {reason}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = _read_node(node, path) if node else Value({}, str(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(tree.content, dict):
        raise UserError(f"{path}: holds no mapping of settings")
    base = tree.content.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base.content, str):
        raise UserError(f"{base.source}: base: is not a file name")
    return merge(read_yaml(path.parent / base.content, (*seen, path.resolve())), tree)


def _read_node(node, path: Path) -> Value:
    """A YAML node as plain Python, each mapping's values wrapped with their lines."""
    source = f"{path}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        loader = yaml.SafeLoader("")
        return Value(loader.construct_object(node, deep=True), source)
    mapping = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in mapping:
            raise UserError(f"{path}:{line}: {key}: is given twice")
        value = _read_node(value_node, path)
        mapping[key] = Value(value.content, f"{path}:{line}")
    return Value(mapping, source)


def to_tree(content, source: str) -> Value:
    """Plain Python as a tree in which every value has the same source."""
    if isinstance(content, dict):
        content = {str(key): to_tree(item, source) for key, item in content.items()}
    return Value(content, source)


def merge(base: Value, top: Value) -> Value:
    """`top` over `base`: mappings are merged key by key, anything else is replaced."""
    if not (isinstance(base.content, dict) and isinstance(top.content, dict)):
        return top
    merged = dict(base.content)
    for key, value in top.content.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return Value(merged, top.source)


def build_settings(schema, tree: Value, prefix: str):
    """The dataclass `schema` from a tree; every key must be a field, every value of its type and range."""
    if not isinstance(tree.content, dict):
        raise UserError(f"{tree.source}: {prefix.rstrip('.')}: is a section, it needs keys, not {tree.content!r}")
    hints = get_type_hints(schema)
    fields = {item.name: item for item in dataclasses.fields(schema)}
    arguments = {}
    for key, value in tree.content.items():
        if key not in fields:
            allowed = nearest(key, fields) or f"; allowed: {', '.join(fields)}"
            raise UserError(f"{value.source}: unknown key {prefix + key!r}{allowed}")
        if dataclasses.is_dataclass(hints[key]):
            arguments[key] = build_settings(hints[key], value, f"{prefix}{key}.")
        else:
            try:
                arguments[key] = check(value.content, hints[key], fields[key].metadata)
            except UserError as error:
                raise UserError(f"{value.source}: {prefix}{key}: {error}") from None
    try:
        return schema(**arguments)
    except UserError as error:
        raise UserError(f"{tree.source}: {prefix}{error}") from None


def check(content, hint, limits=None):
    """`content` as the type `hint` says and within `limits`.

    Raises:
        UserError: what the value is, and what is allowed.
    """
    limits = limits or {}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Union:  # Optional
        return None if content is None else check(content, arguments[0], limits)
    if origin is Literal:
        if not any(content == option and type(content) is type(option) for option in arguments):
            allowed = ", ".join(map(str, arguments))
            raise UserError(f"{content!r} is not one of {allowed}{nearest(content, arguments)}")
        return content
    if origin is tuple:
        return _check_tuple(content, arguments, limits)
    return _check_scalar(content, hint, limits)


def _check_tuple(content, arguments, limits):
    if not isinstance(content, (list, tuple)):
        raise UserError(f"{content!r} is not a list")
    if arguments[-1] is Ellipsis:
        return tuple(check(item, arguments[0], limits) for item in content)
    if len(content) != len(arguments):
        raise UserError(f"{list(content)!r} has {len(content)} items, needs {len(arguments)}")
    return tuple(check(item, hint, limits) for item, hint in zip(content, arguments))


def _check_scalar(content, hint, limits):
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if hint is float and isinstance(content, str):
        try:
            content = float(content)  # YAML 1.1 reads 1e-3 as a text
        except ValueError:
            pass
    if hint is float and type(content) is int:
        content = float(content)
    if type(content) is not hint:
        raise UserError(f"{content!r} is not {names[hint]}")
    low, high = limits.get("low"), limits.get("high")
    # `not >=` also catches nan
    if (low is not None and not content >= low) or (high is not None and not content <= high):
        bounds = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
        raise UserError(f"{content} is out of range: {' and '.join(bounds)}")
    return content
