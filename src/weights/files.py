"""Weights files: reading those of any kind, loading them strictly into a network, and writing our own."""

from dataclasses import dataclass
from pathlib import Path

import mindspore
import numpy as np
import safetensors.numpy
from mindspore import Tensor
from safetensors import SafetensorError

from src.architecture import BLOCKS
from src.console import quiet_logging
from src.errors import UserError, suggestion
from src.files import atomic_path, unwritable
from src.stages import BACKBONE, CLASSIFIER
from src.weights.comparison import compare, describe_lost, set_parameters
from src.weights.foreign import name_foreign
from src.weights.identity import identify
from src.weights.mindspore_file import drop_optimizer, read_checkpoint
from src.weights.names import MINDCV, MINDSPORE, PYTORCH, from_mindcv, from_pytorch, recognise_names
from src.weights.published import find_weights, read_published
from src.weights.safetensors_file import is_safetensors, read_safetensors
from src.weights.torch_file import read_torch_file
from src.weights.unpickler import UnreadableFileError, UnsafePickleError

PREFERENCES = ("ema", "raw")
ORIGIN = "ghostnetv2-mindspore"  # noted in our own `.ckpt` files
# in a checkpoint of a training run: names of the averaged weights, and of all that is no weight
EMA_PREFIX, STATE_PREFIX = "ema.", "state."
NAMES = {MINDCV: ", with mindcv's names"}  # of parameters, where their kind of file usually has others
HEAD = (f"blocks.{len(BLOCKS)}.", "conv_head.", "bn2.", CLASSIFIER)  # of a classifier, what is not its backbone


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds, and where that came from.

    Attributes:
        weights: {our parameter name: ndarray}.
        kind: 'MindSpore checkpoint', 'PyTorch checkpoint' or 'safetensors'.
        section: part of the file that the weights come from, in words, such as 'state_dict_ema'; "" for all of it.
        is_ours: whether this project wrote the file.
        names: whose names it had, one of `names.CONVENTIONS`.
        entries: arrays in the file's own count.
    """

    weights: dict
    kind: str
    section: str = ""
    is_ours: bool = False
    names: str = MINDSPORE
    entries: int = 0

    @property
    def identity(self):
        """`Identity` of the network that the weights belong to; None if unknown."""
        return identify({name: value.shape for name, value in self.weights.items()})

    def describe(self) -> str:
        """Put the file in words."""
        section = f", its {self.section}" if self.section else ""
        return f"{self.kind}{section}{NAMES.get(self.names, '')}: {self.describe_network()}"

    def describe_network(self) -> str:
        """Put the network that the weights belong to in words."""
        shapes = {n[len(BACKBONE) :]: value.shape for n, value in self.weights.items() if n.startswith(BACKBONE)}
        backbone = identify(shapes)
        if backbone is not None:
            return f"a network on {backbone.network}"
        return str(self.identity or "no network that this project knows")


def save_weights(network, path) -> None:
    """Write all parameters of `network`, statistics of batch normalisation among them.

    Args:
        network: nn.Cell; the names of averaged weights lose their prefix.
        path: `.safetensors`, or else a MindSpore checkpoint.
    """
    write_weights({p.name.removeprefix(EMA_PREFIX): p.asnumpy() for p in network.get_parameters()}, path)


def write_weights(weights, path, notes=None) -> None:
    """Write {our parameter name: ndarray} as `.safetensors`, or else as a MindSpore checkpoint.

    Args:
        notes: {name: text} to go into the checkpoint.

    Raises:
        UserError: if it cannot be written; a file that was there stays as it was.
    """
    is_safetensors = Path(path).suffix == ".safetensors"
    with atomic_path(path, None if is_safetensors else ".ckpt") as temporary:
        try:
            if is_safetensors:
                arrays = {name: np.array(value, order="C") for name, value in weights.items()}
                safetensors.numpy.save_file(arrays, temporary)
            else:
                entries = [{"name": name, "data": Tensor(np.array(value))} for name, value in weights.items()]
                with quiet_logging():  # MindSpore logs what it also raises
                    mindspore.save_checkpoint(entries, str(temporary), append_dict={"origin": ORIGIN, **(notes or {})})
                temporary.chmod(0o644)  # MindSpore makes it read-only
        except (RuntimeError, SafetensorError) as error:  # the libraries', whatever the system's was
            raise unwritable(path, error.__context__ or error) from None


def read_weights(path, prefer="ema") -> WeightsFile:
    """Read a weights file of any kind, recognised by its content.

    Args:
        path: MindSpore checkpoint (ours, the official port's, the ModelZoo's or mindcv's), PyTorch checkpoint (the
            authors', timm's), with or without training state, or safetensors with any of these names; or the name
            of a fetched file, see `find_weights`.
        prefer: 'ema' or 'raw', where the file has both averaged and plain weights.

    Raises:
        UserError: if the file is missing, damaged, unsafe or something else.
    """
    path = find_weights(path)
    if not path.is_file():
        name = "" if path.suffix else suggestion(path, read_published())
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}, expected a weights file{name}")
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not head:
        raise UserError(f"{path}: is empty")
    if head[:2] == b"PK" or (head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        return _read_pytorch(path, prefer)
    if is_safetensors(head):
        return _port(read_safetensors(path), "safetensors", path)
    foreign = name_foreign(head)
    if foreign:
        raise UserError(f"{path}: is {foreign}, not weights")
    return _read_mindspore(path, prefer)


def _read_pytorch(path, prefer) -> WeightsFile:
    try:
        sections = read_torch_file(path)
    except UnsafePickleError as error:
        raise UserError(f"{path}: is refused: {error}") from None
    except UnreadableFileError as error:
        raise UserError(f"{path}: is not a whole PyTorch checkpoint: {error}") from None
    filled = [section for section in sections if section.arrays]
    filled = [section for section in filled if section.name] or filled
    if not filled:
        raise UserError(f"{path}: holds no weights")
    averaged = prefer == "ema"
    section, *others = sorted(filled, key=lambda section: section.is_averaged != averaged)
    other = next((other.name for other in others if other.is_averaged != section.is_averaged), None)
    words = _describe_section(section.name, other, section.is_averaged)
    empty = [other.name for other in sections if other.is_averaged == averaged and other.name]
    if section.is_averaged != averaged and empty:
        words += f" ({empty[0]} holds no arrays)"
    return _port(section.arrays, "PyTorch checkpoint", path, words)


def _describe_section(name, other, is_averaged) -> str:
    """Name a part of a file, and the flag that takes the `other` one, if there is one."""
    return f"{name} (--weights {'raw' if is_averaged else 'ema'} takes its {other})" if other else name


def _read_mindspore(path, prefer) -> WeightsFile:
    arrays, notes = read_checkpoint(path)
    averages = {name[len(EMA_PREFIX) :]: value for name, value in arrays.items() if name.startswith(EMA_PREFIX)}
    section = ""
    weights = {name: v for name, v in arrays.items() if not name.startswith((EMA_PREFIX, STATE_PREFIX))}
    if averages:
        names = ("moving average", "plain weights") if prefer == "ema" else ("plain weights", "moving average")
        section = _describe_section(*names, prefer == "ema")
        weights = averages if prefer == "ema" else weights
    if notes.get("origin") == ORIGIN:
        return _port(weights, "MindSpore checkpoint", path, section, is_ours=True)
    kept = drop_optimizer(weights)
    section = section or "weights without the optimizer's state" * (len(kept) < len(weights))
    return _port(kept, "MindSpore checkpoint", path, section)


def _port(arrays, kind, path, section="", is_ours=False) -> WeightsFile:
    if not arrays:
        raise UserError(f"{path}: holds no weights")
    names = recognise_names(arrays)
    weights = {PYTORCH: from_pytorch, MINDCV: from_mindcv}.get(names, dict)(arrays)
    return WeightsFile(weights, kind, section, is_ours, names, len(arrays))


def load_weights(network, path, prefer="ema", finetune=False) -> str:
    """Load every parameter of `network` from the file at `path`, which must hold these and no others.

    Args:
        network: nn.Cell.
        path, prefer: see `read_weights`.
        finetune: leave the classifier as it is, and the file's unread. Of a network with a `backbone`, leave all but
            that as it is; the file may be that of a classifier then.

    Returns:
        What was loaded, in words, with a warning if not all of it are numbers.

    Raises:
        UserError: naming the file's network where it is another one, else what is missing, unexpected and of
            another shape. Nothing is loaded then.
    """
    return fit_weights(network, read_weights(path, prefer), path, finetune)


def fit_weights(network, file, path, finetune=False) -> str:
    """Do what `load_weights` does with a `WeightsFile` that was read from `path`."""
    if finetune and hasattr(network, "backbone"):
        return _load_backbone(network.backbone, file, path)
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    weights = file.weights
    if finetune:
        parameters, weights = _without_classifier(parameters), _without_classifier(weights)
    problems = compare(parameters, weights)
    if problems:
        raise UserError(f"{path}: {_misfit(network, file)}{'; '.join(problems)}")
    set_parameters(parameters, weights)
    left_out = "; its classifier is left out, a new one starts" if finetune else ""
    return f"{path}: {file.describe()}{left_out}{_warning(weights)}"


def _without_classifier(values) -> dict:
    return {name: value for name, value in values.items() if not name.startswith(CLASSIFIER)}


def _load_backbone(backbone, file, path) -> str:
    """Load weights into a backbone, from a network that has one, or that is one with a classifier behind it."""
    parameters = {parameter.name.removeprefix(BACKBONE): parameter for parameter in backbone.get_parameters()}
    weights = {name[len(BACKBONE) :]: v for name, v in file.weights.items() if name.startswith(BACKBONE)}
    if not weights:
        weights = {name: v for name, v in file.weights.items() if not name.startswith(HEAD)}
    problems = compare(parameters, weights)
    if problems:
        raise UserError(f"{path}: does not fit the backbone: {'; '.join(problems)}; it holds {file.describe_network()}")
    set_parameters(parameters, weights)
    return f"{path}: {file.describe()}; its backbone alone is taken, all else starts anew{_warning(weights)}"


def _warning(weights) -> str:
    lost = describe_lost(weights)
    return f"; warning: {lost}" if lost else ""


def _misfit(network, file) -> str:
    """Begin the sentence on a file that does not fit; if it belongs to another known network, say to which."""
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    theirs, ours = file.identity, identify({name: parameter.shape for name, parameter in parameters.items()})
    if theirs is None or ours is None or theirs == ours:
        return "does not fit the network: "
    advice = f"{theirs.settings} builds that one; "
    if theirs.settings == ours.settings:
        others = compare(_without_classifier(parameters), _without_classifier(file.weights))
        advice = "" if others else "--finetune keeps the rest and starts a new classifier; "
    return f"holds {theirs}, the network is {ours}; {advice}"
