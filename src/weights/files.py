"""Weights files: reading those of any kind, loading them strictly into a network, and writing our own."""

from dataclasses import dataclass
from pathlib import Path

import mindspore
import numpy as np
import safetensors.numpy
from mindspore import Tensor
from safetensors import SafetensorError

from src.architecture import BLOCKS
from src.errors import UserError
from src.files import atomic_path, unwritable
from src.weights.names import CLASSIFIER, from_pytorch, identify, is_pytorch
from src.weights.torch_file import UnreadableFileError, UnsafePickleError, read_torch_file

NAMES_SHOWN = 3
PREFERENCES = ("ema", "raw")
# where PyTorch training scripts keep their weights: the averaged ones, the plain ones
SECTIONS = {"ema": ("state_dict_ema", "model_ema", "ema"), "raw": ("state_dict", "model")}
ORIGIN = "ghostnetv2-mindspore"  # noted in our own `.ckpt` files
# in a checkpoint of a training run: names of the averaged weights, and of all that is no weight
EMA_PREFIX, STATE_PREFIX = "ema.", "state."
BACKBONE = "backbone."  # prefix of the parameters of a backbone, in networks that have one
HEAD = (f"blocks.{len(BLOCKS)}.", "conv_head.", CLASSIFIER)  # of a classifier, what is not its backbone


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds, and where that came from.

    Attributes:
        weights: {our parameter name: ndarray}.
        kind: 'MindSpore checkpoint', 'PyTorch checkpoint' or 'safetensors'.
        section: part of the file that the weights come from, such as 'state_dict_ema'; "" for all of it.
        is_ours: whether this project wrote the file.
        from_pytorch: whether it had PyTorch's names.
        entries: arrays in the file's own count.
    """

    weights: dict
    kind: str
    section: str = ""
    is_ours: bool = False
    from_pytorch: bool = False
    entries: int = 0

    @property
    def identity(self):
        """`Identity` of the network that the weights belong to; None if unknown."""
        return identify({name: value.shape for name, value in self.weights.items()})

    def describe(self) -> str:
        """Put the file in words."""
        section = f", its {self.section}" if self.section else ""
        return f"{self.kind}{section}: {self._describe_network()}"

    def _describe_network(self) -> str:
        shapes = {n[len(BACKBONE) :]: value.shape for n, value in self.weights.items() if n.startswith(BACKBONE)}
        backbone = identify(shapes)
        if backbone is not None:
            return f"a network on {backbone.variant}"
        return str(self.identity or "no GhostNet that this project knows")


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
                arrays = {name: np.ascontiguousarray(value) for name, value in weights.items()}
                safetensors.numpy.save_file(arrays, temporary)
            else:
                entries = [{"name": name, "data": Tensor(value)} for name, value in weights.items()]
                mindspore.save_checkpoint(entries, str(temporary), append_dict={"origin": ORIGIN, **(notes or {})})
                temporary.chmod(0o644)  # MindSpore makes it read-only
        except (RuntimeError, SafetensorError) as error:  # the libraries', whatever the system's was
            raise unwritable(path, error.__context__ or error) from None


def read_checkpoint(path):
    """Read a MindSpore checkpoint.

    Returns:
        ({name: ndarray}, {name: note}).

    Raises:
        UserError: if it is missing, or no whole one.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file, expected a checkpoint")
    try:
        content = mindspore.load_checkpoint(str(path))
    except (ValueError, RuntimeError, TypeError, OSError):
        raise UserError(f"{path}: is not a whole MindSpore checkpoint, nor another kind of weights file") from None
    arrays = {name: value.asnumpy() for name, value in content.items() if hasattr(value, "asnumpy")}
    return arrays, {name: value for name, value in content.items() if name not in arrays}


def read_weights(path, prefer="ema") -> WeightsFile:
    """Read a weights file of any kind, recognised by its content.

    Args:
        path: MindSpore checkpoint (ours, or the official port's), PyTorch checkpoint (the authors', timm's, with
            or without training state), or safetensors with either's names.
        prefer: 'ema' or 'raw', where the file has both averaged and plain weights.

    Raises:
        UserError: if the file is missing, damaged, unsafe or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}, expected a weights file")
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not head:
        raise UserError(f"{path}: is empty")
    if head[:2] == b"PK" or (head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        return _read_pytorch(path, prefer)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return _read_safetensors(path)
    if _is_text(head):
        raise UserError(f"{path}: is a text file, not weights")
    return _read_mindspore(path, prefer)


def _is_text(head: bytes) -> bool:
    printable = sum(32 <= byte < 127 or byte in b"\t\n\r" for byte in head)
    return printable == len(head)


def _read_pytorch(path, prefer) -> WeightsFile:
    try:
        content = read_torch_file(path)
    except UnsafePickleError as error:
        raise UserError(f"{path}: is refused: {error}") from None
    except UnreadableFileError as error:
        raise UserError(f"{path}: is not a whole PyTorch checkpoint: {error}") from None
    section = ""
    if isinstance(content, dict):
        order = SECTIONS[prefer] + SECTIONS["raw" if prefer == "ema" else "ema"]
        section = next((name for name in order if isinstance(content.get(name), dict)), "")
        content = content[section] if section else content
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no weights")
    arrays = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    return _port(arrays, "PyTorch checkpoint", path, section)


def _read_safetensors(path) -> WeightsFile:
    try:
        arrays = safetensors.numpy.load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is not a whole safetensors file: {error}") from None
    return _port(arrays, "safetensors", path)


def _read_mindspore(path, prefer) -> WeightsFile:
    arrays, notes = read_checkpoint(path)
    averages = {name[len(EMA_PREFIX) :]: value for name, value in arrays.items() if name.startswith(EMA_PREFIX)}
    section = ""
    weights = {name: v for name, v in arrays.items() if not name.startswith((EMA_PREFIX, STATE_PREFIX))}
    if averages:
        section = "moving average" if prefer == "ema" else "plain weights"
        weights = averages if prefer == "ema" else weights
    return WeightsFile(
        weights, "MindSpore checkpoint", section, is_ours=notes.get("origin") == ORIGIN, entries=len(weights)
    )


def _port(arrays, kind, path, section="") -> WeightsFile:
    if not arrays:
        raise UserError(f"{path}: holds no weights")
    theirs = is_pytorch(arrays)
    weights = from_pytorch(arrays) if theirs else arrays
    return WeightsFile(weights, kind, section, from_pytorch=theirs, entries=len(arrays))


def load_weights(network, path, prefer="ema", finetune=False) -> str:
    """Load every parameter of `network` from the file at `path`, which must hold these and no others.

    Args:
        network: nn.Cell.
        path, prefer: see `read_weights`.
        finetune: leave the classifier as it is, and the file's unread. Of a network with a `backbone`, leave all but
            that as it is; the file may be that of a classifier then.

    Returns:
        What was loaded, in words.

    Raises:
        UserError: naming the file's network where it is another one, else what is missing, unexpected and of
            another shape. Nothing is loaded then.
    """
    file = read_weights(path, prefer)
    if finetune and hasattr(network, "backbone"):
        return _load_backbone(network.backbone, file, path)
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    weights = file.weights
    if finetune:
        parameters, weights = (
            {name: value for name, value in values.items() if not name.startswith(CLASSIFIER)}
            for values in (parameters, weights)
        )
    problems = compare(parameters, weights)
    if problems:
        raise UserError(f"{path}: {_misfit(network, file)}{'; '.join(problems)}")
    set_parameters(parameters, weights)
    return f"{path}: {file.describe()}" + ("; its classifier is left out, a new one starts" if finetune else "")


def _load_backbone(backbone, file, path) -> str:
    """Load weights into a backbone, from a network that has one, or that is one with a classifier behind it."""
    parameters = {parameter.name.removeprefix(BACKBONE): parameter for parameter in backbone.get_parameters()}
    weights = {name[len(BACKBONE) :]: v for name, v in file.weights.items() if name.startswith(BACKBONE)}
    if not weights:
        weights = {name: v for name, v in file.weights.items() if not name.startswith(HEAD)}
    problems = compare(parameters, weights)
    if problems:
        raise UserError(f"{path}: does not fit the backbone: {'; '.join(problems)}; it is for {file.identity}")
    set_parameters(parameters, weights)
    return f"{path}: {file.describe()}; its backbone alone is taken, all else starts anew"


def _misfit(network, file) -> str:
    """Begin the sentence on a file that does not fit; if it belongs to another known network, say to which."""
    theirs = file.identity
    ours = identify({parameter.name: parameter.shape for parameter in network.get_parameters()})
    if theirs is None or ours is None or theirs == ours:
        return "does not fit the network: "
    advice = f"network.name={theirs.variant} builds that one"
    if theirs.variant == ours.variant:
        advice = "--finetune keeps the rest and starts a new classifier"
    return f"holds {theirs}, the network is {ours}; {advice}; "


def set_parameters(parameters, weights) -> None:
    """Set {name: parameter} to the arrays of the same names in `weights`."""
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(np.asarray(weights[name]), parameter.dtype))


def compare(parameters, weights) -> list:
    """Compare {name: parameter} of a network with {name: array} of a file.

    Returns:
        The differences in words: what is missing, unexpected, and of another shape; [] if there are none.
    """
    missing = [name for name in parameters if name not in weights]
    unexpected = [name for name in weights if name not in parameters]
    misshaped = [
        f"{name} is {tuple(weights[name].shape)}, needs {tuple(parameter.shape)}"
        for name, parameter in parameters.items()
        if name in weights and tuple(weights[name].shape) != tuple(parameter.shape)
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshaped))
    return [f"{len(names)} {word} ({_shorten(names)})" for word, names in found if names]


def _shorten(names) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
