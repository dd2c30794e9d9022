"""What the modules of the formats have in common: an open file, the checks of its input, the words of its errors."""

import os
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Optional, Tuple

from src.errors import UserError, shorten

REASON_LENGTH = 300  # characters of a library's text


@dataclass(frozen=True)
class ExportedFile:
    """An exported file, open.

    Attributes:
        run: function from float32 (N, C, H, W) to a list of arrays, maps as (N, C, H, W); raises `UserError` if the
            runtime cannot compute the network.
        input_shape, output_shape: of the input and the first output, None for a dimension that is open.
        output_count: how many outputs there are.
        notes: what export.py has left in the file.
    """

    run: Callable[[Any], list]
    input_shape: Tuple[Optional[int], ...]
    output_shape: Tuple[Optional[int], ...]
    output_count: int
    notes: dict


def check_inputs(path, shapes, are_float32) -> None:
    """Raise `UserError` unless a file takes one float32 input (N, C, H, W).

    Args:
        path: of the file.
        shapes: of its inputs.
        are_float32: for each input whether it is float32.
    """
    if len(shapes) != 1:
        raise UserError(f"{path}: has {len(shapes)} inputs, a network for images has one")
    if len(shapes[0]) != 4 or not are_float32[0]:
        kind = "float32" if are_float32[0] else "no float32"
        raise UserError(f"{path}: takes {kind} {show_sides(shapes[0])}, a network for images float32 (N, C, H, W)")


def guarded(run, path, runtime):
    """Wrap `run` so that the errors of a runtime become a `UserError`."""

    def run_or_say_why(images):
        try:
            return run(images)
        except Exception as error:  # onnxruntime's errors have no base class of their own
            raise UserError(f"{path}: {runtime} cannot run it: {reason(error)}") from None

    return run_or_say_why


def reason(error) -> str:
    """Take the words out of a library's error, without where in its source they stand."""
    lines = [line.strip("- ") for line in str(error).splitlines() if re.search(r"\w", line)]
    text = " ".join(lines).partition("C++ Call Stack")[0]
    text = re.sub(r".* failed:(/\S+ [\w:]+\(.*?\) )?", "", text).strip()
    return shorten(text or type(error).__name__, REASON_LENGTH)


def show_sides(shape) -> str:
    """Put a shape in words: (3, 224, None) becomes '3x224x?'."""
    return "x".join("?" if side is None else str(side) for side in shape)


@contextmanager
def without_log():
    """Keep what a library's C++ code writes to standard error away: what matters is in its errors as well."""
    sys.stderr.flush()
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
