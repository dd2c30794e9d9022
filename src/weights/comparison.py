"""Weights against the parameters of a network: what does not fit, what is lost, and setting them."""

import numpy as np
from mindspore import Tensor

NAMES_SHOWN = 3


def set_parameters(parameters, weights) -> None:
    """Set {name: parameter} to the arrays of the same names in `weights`."""
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(np.array(weights[name], order="C"), parameter.dtype))


def compare(parameters, weights) -> list:
    """Compare {name: parameter} of a network with {name: array} of a file.

    Returns:
        The differences in words: what is missing, unexpected, and of another shape or type; [] if there are none.
    """
    missing = [name for name in parameters if name not in weights]
    unexpected = [name for name in weights if name not in parameters]
    misshaped = [
        f"{name} is {tuple(weights[name].shape)}, needs {tuple(parameter.shape)}"
        for name, parameter in parameters.items()
        if name in weights and tuple(weights[name].shape) != tuple(parameter.shape)
    ]
    mistyped = [
        f"{name} is {weights[name].dtype}, needs {str(parameter.dtype).lower()}"
        for name, parameter in parameters.items()
        if name in weights and "float" in str(parameter.dtype).lower() and weights[name].dtype.kind != "f"
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshaped), ("wrong type", mistyped))
    return [f"{len(names)} {word} ({_shorten(names)})" for word, names in found if names]


def describe_lost(weights) -> str:
    """Say which of {name: array} a diverged training has left without meaning; "" if there are none."""
    names = [name for name, value in weights.items() if not np.isfinite(value).all()]
    return f"{len(names)} of {len(weights)} arrays hold nan or inf ({_shorten(names)})" if names else ""


def _shorten(names) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
