"""Safetensors, in all types of numbers that a network's weights may have; NumPy's own reader lacks bfloat16."""

from pathlib import Path

import numpy as np
import safetensors
from safetensors import SafetensorError

from src.errors import UserError
from src.weights.unpickler import widen_bfloat16

LARGEST_HEADER = 100_000_000  # bytes that the format allows
HEADER_START = 8  # bytes in front of the header, which give its size
DTYPES = {"BOOL": "?", **{f"{k}{8 * n}": f"<{k.lower()}{n}" for k in "IU" for n in (1, 2, 4, 8)}}
DTYPES.update({f"F{8 * n}": f"<f{n}" for n in (2, 4, 8)}, C64="<c8")


def is_safetensors(head: bytes) -> bool:
    """Tell by the first bytes of a file."""
    start, size = head[HEADER_START:], int.from_bytes(head[:HEADER_START], "little")
    return start[:1] == b"{" and size <= LARGEST_HEADER


def read_safetensors(path) -> dict:
    """Read {name: array}; bfloat16 becomes float32.

    Raises:
        UserError: if the file is damaged, or an array of a type that NumPy lacks.
    """
    try:
        entries = safetensors.deserialize(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except SafetensorError as error:
        raise UserError(f"{path}: is not a whole safetensors file: {error}") from None
    arrays = {}
    for name, entry in entries:
        kind, data = entry["dtype"], entry["data"]
        if kind != "BF16" and kind not in DTYPES:
            raise UserError(f"{path}: {name} is of type {kind}, which is not read")
        flat = widen_bfloat16(data) if kind == "BF16" else np.frombuffer(data, DTYPES[kind])
        arrays[name] = flat.reshape(entry["shape"])
    return arrays
