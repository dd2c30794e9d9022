"""MindSpore's checkpoints, read without its loader, which logs what is wrong with a file in many lines of its own."""

from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from mindspore.train.checkpoint_pb2 import Checkpoint

from src.errors import UserError
from src.weights.unpickler import widen_bfloat16

# what MindSpore's own training adds to a checkpoint, beside an array of the optimizer's for each of the weights
TRAINING_STATE = ("global_step", "learning_rate", "momentum", "beta1_power", "beta2_power", "loss_scale", "scale_sense")
TRAINING_STATE += ("current_iterator_step", "last_overflow_iterator_step", "epoch_num", "step_num", "batch_num")

CHECKSUM = b"crc_num"  # begins the last CHECKSUM_SIZE bytes of a file with a checksum
CHECKSUM_SIZE = 17
DTYPES = {f"{kind}{8 * n}": np.dtype(f"<{kind[0].lower()}{n}") for kind in ("Int", "UInt") for n in (1, 2, 4, 8)}
DTYPES.update({f"Float{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)}, Bool=np.dtype("?"))


def read_checkpoint(path):
    """Read a MindSpore checkpoint.

    Returns:
        ({name: ndarray}, {name: note}); bfloat16 becomes float32.

    Raises:
        UserError: if it is missing, or no whole one.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file, expected a checkpoint")
    arrays, notes = {}, {}
    for name, (tensor, data) in _read_entries(path).items():
        try:
            if tensor.tensor_type == "str":
                notes[name] = data.decode("utf-32-le").rstrip("\0")
            else:
                arrays[name] = _decode(tensor, data)
        except ValueError:
            size, shape = len(data), tuple(tensor.dims)
            raise UserError(f"{path}: {name} is damaged: {size} bytes for {tensor.tensor_type} {shape}") from None
        except KeyError:
            raise UserError(f"{path}: {name} is of type {tensor.tensor_type}, which is not read") from None
    return arrays, notes


def drop_optimizer(arrays) -> dict:
    """Leave out what training keeps beside weights, such as `moments.conv_stem.weight` and `global_step`."""

    def is_state(name):
        weight = arrays.get(name.partition(".")[2])
        return name in TRAINING_STATE or (weight is not None and weight.shape == arrays[name].shape)

    return {name: value for name, value in arrays.items() if not is_state(name)}


def _read_entries(path) -> dict:
    """Read {name: (TensorProto, bytes)}; a large array lies in several pieces, one behind the other."""
    try:
        content = Path(path).read_bytes()
        if content[-CHECKSUM_SIZE:].startswith(CHECKSUM):
            content = content[:-CHECKSUM_SIZE]
        checkpoint = Checkpoint.FromString(content)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except DecodeError:
        raise UserError(f"{path}: is not a whole MindSpore checkpoint, nor another kind of weights file") from None
    pieces, last = {}, None
    for value in checkpoint.value:
        if value.tag in pieces and value.tag != last:
            raise UserError(f"{path}: {value.tag} is there twice")
        pieces.setdefault(value.tag, (value.tensor, []))[1].append(value.tensor.tensor_content)
        last = value.tag
    return {name: (tensor, b"".join(parts)) for name, (tensor, parts) in pieces.items()}


def _decode(tensor, data):
    """Decode an array; MindSpore writes the shape of a single number as [0]."""
    is_wide = tensor.tensor_type == "BFloat16"
    flat = widen_bfloat16(data) if is_wide else np.frombuffer(data, DTYPES[tensor.tensor_type])
    shape = () if list(tensor.dims) == [0] and len(flat) == 1 else tuple(tensor.dims)
    return flat.reshape(shape)
