"""Port weights between PyTorch, mindcv and MindSpore: python scripts/port_weights.py --input A --output B

The input is recognised by its content. --names says which names the output has: `mindspore` (those of this project and
of the official port) and `mindcv` in `.ckpt` or `.safetensors`, `pytorch` in `.pth`, `.pth.tar`, `.bin` or
`.safetensors`. Without it, these are MindSpore's from PyTorch's or mindcv's, and PyTorch's from MindSpore's. Beside the
output, OUTPUT.json notes where it comes from. Writing PyTorch's own formats needs torch.
"""

import argparse
import hashlib
import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np
from mindspore import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import VERSION
from src.architecture import VARIANTS
from src.console import Parser, run
from src.errors import UserError
from src.files import atomic_path, refuse_existing, write_text
from src.networks import create_network
from src.weights import read_weights, write_weights
from src.weights.comparison import compare, set_parameters
from src.weights.files import PREFERENCES, WeightsFile
from src.weights.names import (
    BATCH_COUNTER,
    CONVENTIONS,
    MINDCV,
    MINDSPORE,
    PYTORCH,
    TIMM_NAMES,
    is_batch_norm_mean,
    to_mindcv_name,
    to_pytorch_names,
)
from src.weights.published import find_weights

ENDINGS = {
    MINDSPORE: (".ckpt", ".safetensors"),
    MINDCV: (".ckpt", ".safetensors"),
    PYTORCH: (".pth", ".pth.tar", ".bin", ".safetensors"),
}
WORDS = {MINDSPORE: "MindSpore", MINDCV: "mindcv", PYTORCH: "PyTorch"}
CHECK_SIZE = 224


def parse_arguments():
    parser = Parser(__doc__, argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, type=Path, metavar="A", help="weights file")
    parser.add_argument("--output", required=True, type=Path, metavar="B", help="file to write")
    parser.add_argument("--weights", choices=PREFERENCES, default="ema", help="which, where A has both")
    parser.add_argument("--names", choices=CONVENTIONS, help="those of B; default: of another framework than A's")
    parser.add_argument("--force", action="store_true", help="overwrite B")
    return parser.parse_args()


def to_pytorch(weights) -> dict:
    """{PyTorch's name: array}, with a batch counter for each batch normalisation, from {our name: array}."""
    ported = {}
    for name, theirs in to_pytorch_names(weights).items():
        ported[theirs] = weights[name]
        if is_batch_norm_mean(name):
            ported[theirs.replace("running_mean", BATCH_COUNTER)] = np.array(0, np.int64)
    return ported


def rename(file, names) -> dict:
    """{name: array} of a weights file, with the names of one of `CONVENTIONS`, which must have some for all of it.

    Raises:
        UserError: if it has none.
    """
    identity = file.identity
    if names == MINDCV and (identity.attention or VARIANTS.get(identity.variant, {}).get("attention") != "none"):
        raise UserError(f"--names mindcv: has no names for {identity.network}, only for GhostNet V1")
    try:
        if names == MINDCV:
            return {to_mindcv_name(name): value for name, value in file.weights.items()}
        return to_pytorch(file.weights) if names == PYTORCH else file.weights
    except KeyError as error:
        raise UserError(f"--names {names}: has no names for {identity.network}, such as {error.args[0]}") from None


def write_pytorch(arrays, path) -> None:
    """Write a state dict as safetensors, or with torch."""
    if path.suffix == ".safetensors":
        write_weights(arrays, path)
        return
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"{path}: writing PyTorch's format needs torch; .safetensors does not")
    import torch

    content = io.BytesIO()  # torch's own writer tells about a full disk in words of its own
    torch.save({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}, content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())


def check_logits(file: WeightsFile, network):
    """Largest difference of the logits of timm's network and ours on random input; None where it cannot be had."""
    name = TIMM_NAMES.get(file.identity.variant)
    if (
        name is None
        or file.identity.width is not None
        or file.identity.attention is not None
        or file.identity.num_classes is None
        or importlib.util.find_spec("timm") is None
    ):
        return None
    import timm
    import torch

    model = timm.create_model(name, num_classes=file.identity.num_classes).eval()
    model.load_state_dict({key: torch.from_numpy(np.array(v)) for key, v in to_pytorch(file.weights).items()})
    x = np.random.default_rng(0).standard_normal((1, 3, CHECK_SIZE, CHECK_SIZE)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    return float(np.abs(network.set_train(False)(Tensor(x)).asnumpy() - expected).max())


def check_fit(file: WeightsFile, source):
    """Build the network that a weights file holds, with its weights, all of which must fit."""
    identity = file.identity
    if identity is None:
        raise UserError(f"{source}: holds no network that this project knows")
    options = {"width": identity.width, "attention": identity.attention}
    network = create_network(identity.variant, identity.num_classes or 1, **options)
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    problems = compare(parameters, file.weights)
    if problems:
        raise UserError(f"{source}: holds {identity}, but {'; '.join(problems)}")
    set_parameters(parameters, file.weights)
    return network


def main():
    arguments = parse_arguments()
    target = arguments.output
    refuse_existing(target, arguments.force)
    source = find_weights(arguments.input)
    file = read_weights(source, arguments.weights)
    names = arguments.names or (PYTORCH if file.names == MINDSPORE else MINDSPORE)
    if not target.name.endswith(ENDINGS[names]):
        allowed = ", ".join(ENDINGS[names])
        raise UserError(f"{target}: the output is for {WORDS[names]}, its ending must be one of {allowed}")
    network = check_fit(file, source)
    ported = rename(file, names)
    (write_pytorch if names == PYTORCH else write_weights)(ported, target)
    note = {
        "source": source.name,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "source_kind": file.describe(),
        "tool": f"ghostnetv2-mindspore {VERSION} scripts/port_weights.py",
    }
    write_text(target.with_name(target.name + ".json"), json.dumps(note, indent=2) + "\n")
    print(f"{source}: {file.describe()}")
    print(f"{file.entries} entries read, {len(ported)} written to {target}, all shapes equal")
    difference = check_logits(file, network)
    if difference is None:
        print("logits not compared: needs torch, timm, and a network that timm has")
    else:
        print(f"logits differ by {difference:.1e}")


if __name__ == "__main__":
    run(main)
