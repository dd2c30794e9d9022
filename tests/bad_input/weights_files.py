"""Weights files, exported files and checkpoints of runs, prepared in a folder of good inputs."""

import json
import os
import struct
import zipfile

import numpy as np
from bad_input.case import CLASSIFICATION, WEIGHTS
from helpers import reference

RUN = "run/last.ckpt"


def write(name, content):
    """Prepare a file of bytes."""
    return lambda folder: (folder / name).write_bytes(content)


def write_torch(name, build, **form):
    """Prepare what `torch.save` makes of `build(torch)`."""

    def prepare(folder):
        torch = reference("torch")
        torch.save(build(torch), folder / name, **form)

    return prepare


def write_arrays(name, arrays, **notes):
    """Prepare a checkpoint, or safetensors, of {name: array}."""

    def prepare(folder):
        from src.weights import write_weights

        write_weights(arrays, folder / name, notes)

    return prepare


def change_weights(name, change):
    """Prepare the good weights with `change(arrays)`, which may give more notes."""

    def prepare(folder):
        from src.weights import read_weights, write_weights

        arrays = {key: value.copy() for key, value in read_weights(folder / WEIGHTS).weights.items()}
        change(arrays)
        write_weights(arrays, folder / name)

    return prepare


def change_bytes(name, change):
    """Prepare the bytes of the good weights with `change(bytes)`."""
    return lambda folder: (folder / name).write_bytes(change((folder / WEIGHTS).read_bytes()))


def write_zip(name, entries):
    """Prepare a compressed archive of {name: bytes}."""

    def prepare(folder):
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, content in entries.items():
                archive.writestr(entry, content)

    return prepare


def write_entries(name, *entries):
    """Prepare a MindSpore checkpoint of (name, type, dims, bytes)."""

    def prepare(folder):
        from mindspore.train.checkpoint_pb2 import Checkpoint

        checkpoint = Checkpoint()
        for tag, kind, dims, content in entries:
            value = checkpoint.value.add(tag=tag)
            value.tensor.tensor_type, value.tensor.tensor_content = kind, content
            value.tensor.dims.extend(dims)
        (folder / name).write_bytes(checkpoint.SerializeToString())

    return prepare


def write_safetensors(name, header, data=bytes(16)):
    """Prepare safetensors with a header of its own."""
    text = json.dumps(header).encode()
    return write(name, struct.pack("<Q", len(text)) + text + data)


def write_run(progress):
    """Prepare the checkpoint of a run with a note of its progress."""

    def prepare(folder):
        write_arrays(RUN, {"weight": np.zeros(2, np.float32)}, progress=progress)(folder)
        (folder / "run/config.yaml").write_text(f"base: ../{CLASSIFICATION}\ndata: {{class_names: [a, b]}}\n")

    return prepare


def spoil_all(arrays):
    for array in arrays.values():
        array[...] = np.nan


def spoil_one(arrays):
    arrays["classifier.bias"][1] = np.inf


def lose_one(arrays):
    del arrays["conv_head.bias"]


def to_bytes(arrays):
    for name in ("conv_stem.weight", "classifier.weight"):
        arrays[name] = arrays[name].astype(np.int8)


def to_complex(torch):
    return {"conv_stem.weight": torch.zeros(16, 3, 3, 3, dtype=torch.complex64), "bn1.running_mean": torch.zeros(16)}


def build_diverged(name, config):
    """Prepare weights of a task's network that are all nan."""

    def prepare(folder):
        from src.config import load_config
        from src.tasks import SCHEMAS, create_task
        from src.weights import write_weights

        network = create_task(load_config(folder / config, SCHEMAS)).build_network()
        values = {p.name: np.full(p.shape, np.nan, np.float32) for p in network.get_parameters()}
        write_weights(values, folder / name)

    return prepare


class Payload:
    """Runs a command where its pickle is run."""

    def __reduce__(self):
        return os.system, ("touch executed",)
