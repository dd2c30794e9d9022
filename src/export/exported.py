"""Exported files of any format, called like the network that they were made from. Only MINDIR needs MindSpore."""

import dataclasses
from pathlib import Path

import numpy as np

from src.errors import UserError
from src.export.exported_file import ExportedFile
from src.export.onnx_file import open_onnx, read_onnx_notes
from src.export.tflite_file import open_tflite, read_tflite_notes

ENDINGS = (".mindir", ".onnx", ".tflite")
SETTINGS = "settings"  # in a file's notes: the settings (YAML) that it was exported with
OUTPUTS = "outputs"  # in a file's notes: the names of its outputs
PROBABILITIES = "probabilities"  # the name of an output behind a softmax


def with_image_size(config, size):
    """Give settings whose `data.image_size` is the (height, width) of a file's input, where they can say it."""
    data = config.data
    if isinstance(data.image_size, tuple):
        return dataclasses.replace(config, data=dataclasses.replace(data, image_size=size))
    if size[0] != size[1]:
        return config
    changes = {"image_size": size[0]}
    if hasattr(data, "eval_resize"):  # is never smaller
        changes["eval_resize"] = max(size[0], data.eval_resize)
    return dataclasses.replace(config, data=dataclasses.replace(data, **changes))


def is_exported(path) -> bool:
    """Tell by its ending whether `path` names an exported file."""
    return Path(path).suffix.lower() in ENDINGS


def read_notes(path) -> dict:
    """Read what export.py noted in an exported file: {'settings': YAML, 'outputs': names}; {} for foreign files."""
    _, read = _readers(path)
    return read(Path(path))


def open_exported(path) -> ExportedFile:
    """Open an exported file of a network for images, which has one input.

    Raises:
        UserError: if it is missing or damaged, takes something else, or its runtime is not installed. `run` raises it,
            too, if the runtime cannot compute the network.
    """
    open_file, _ = _readers(path)
    return open_file(Path(path))


def _readers(path):
    """Find the functions that open a file and read its notes; the file must be there."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}, expected an exported network")
    if path.suffix.lower() == ".mindir":
        from src.export.mindir_file import open_mindir, read_mindir_notes  # starts MindSpore

        return open_mindir, read_mindir_notes
    if path.suffix.lower() == ".onnx":
        return open_onnx, read_onnx_notes
    return open_tflite, read_tflite_notes


class FileNetwork:
    """An exported file in prediction: array float32 (N, C, H, W) -> list of arrays.

    A file with a fixed batch is run in pieces of that size, the last one filled up. Probabilities are turned
    into logits, their logarithms: the softmax of these gives the probabilities back.

    Attributes:
        file: `ExportedFile`.
        input_size: (height, width) that the file was made for; None if any will do.
    """

    def __init__(self, path):
        self.file = open_exported(path)
        self.input_size = None if None in self.file.input_shape[2:] else self.file.input_shape[2:]
        self.is_probability = self.file.notes.get(OUTPUTS) == PROBABILITIES

    def __call__(self, images):
        size = self.file.input_shape[0] or len(images)
        pieces = []
        for start in range(0, len(images), size):
            piece = images[start : start + size]
            filling = np.zeros((size - len(piece), *piece.shape[1:]), piece.dtype)
            pieces.append([y[: len(piece)] for y in self.file.run(np.concatenate((piece, filling)))])
        outputs = [np.concatenate(parts) for parts in zip(*pieces)]
        if self.is_probability:
            outputs = [np.log(np.maximum(y, np.finfo(y.dtype).tiny)) for y in outputs]
        return outputs


class ExportedNetwork(FileNetwork):
    """Stands in for a network in evaluation: Tensor (N, C, H, W) -> Tensor, or a tuple of them."""

    def set_train(self, mode=True):
        """Do nothing: a file is for evaluation."""
        return self

    def __call__(self, images):
        from mindspore import Tensor

        outputs = tuple(Tensor(y) for y in super().__call__(images.asnumpy()))
        return outputs if len(outputs) > 1 else outputs[0]
