"""Weights files: reading them, loading them strictly, and writing files that are whole at any moment."""

import os
from contextlib import contextmanager
from pathlib import Path

import mindspore
import numpy as np
from mindspore import Tensor

from src.errors import UserError

NAMES_SHOWN = 3


@contextmanager
def atomic_path(path, suffix=None):
    """Path to write to in place of `path`: renamed to it when the block succeeds, removed when it fails.

    Args:
        path: the file to be written; its folder is made where missing.
        suffix: file ending that the writer insists on; that of `path` if None.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be made: {error.strerror}") from None
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp{path.suffix if suffix is None else suffix}"
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_weights(network, path) -> None:
    """Write all parameters of `network`, statistics of batch normalisation among them, as a `.ckpt` file."""
    with atomic_path(path, ".ckpt") as temporary:
        mindspore.save_checkpoint(network, str(temporary))
        temporary.chmod(0o644)  # MindSpore makes it read-only


def read_weights(path) -> dict:
    """{parameter name: ndarray} from a MindSpore `.ckpt` file.

    Raises:
        UserError: if there is no such file, or it is no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}, expected a checkpoint")
    try:
        parameters = mindspore.load_checkpoint(str(path))
    except (ValueError, RuntimeError, TypeError, OSError):
        raise UserError(f"{path}: is not a whole MindSpore checkpoint") from None
    return {name: parameter.asnumpy() for name, parameter in parameters.items() if hasattr(parameter, "asnumpy")}


def load_weights(network, path) -> None:
    """Load every parameter of `network` from the file at `path`, which must hold these and no others.

    Raises:
        UserError: naming what is missing, unexpected and of another shape.
    """
    weights = read_weights(path)
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    problems = compare(parameters, weights)
    if problems:
        raise UserError(f"{path}: does not fit the network: {'; '.join(problems)}")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(weights[name].astype(np.float32), parameter.dtype))


def compare(parameters, weights) -> list:
    """Differences in words between {name: parameter} of a network and {name: array} of a file; [] if none."""
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
