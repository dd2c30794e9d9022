"""Port weights between PyTorch and MindSpore: python scripts/port_weights.py --input A --output B

The input is recognised by its content; the output is for the other framework: `.ckpt` or `.safetensors` with
MindSpore's names from PyTorch's, `.pth`, `.pth.tar`, `.bin` or `.safetensors` with PyTorch's names from
MindSpore's. Beside the output, OUTPUT.json notes where it comes from. Writing PyTorch's own formats needs torch.
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
from src.console import Parser, run
from src.errors import UserError
from src.files import atomic_path, refuse_existing, write_text
from src.networks import create_network
from src.weights import read_weights, write_weights
from src.weights.files import PREFERENCES, WeightsFile, compare, set_parameters
from src.weights.names import BATCH_COUNTER, TIMM_NAMES, is_batch_norm_mean, to_pytorch_names

MINDSPORE_ENDINGS = (".ckpt", ".safetensors")
PYTORCH_ENDINGS = (".pth", ".pth.tar", ".bin", ".safetensors")
CHECK_SIZE = 224


def parse_arguments():
    parser = Parser(__doc__, argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, type=Path, metavar="A", help="weights file")
    parser.add_argument("--output", required=True, type=Path, metavar="B", help="file to write")
    parser.add_argument("--weights", choices=PREFERENCES, default="ema", help="which, where A has both")
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


def main():
    arguments = parse_arguments()
    source, target = arguments.input, arguments.output
    refuse_existing(target, arguments.force)
    file = read_weights(source, arguments.weights)
    endings = MINDSPORE_ENDINGS if file.from_pytorch else PYTORCH_ENDINGS
    if not target.name.endswith(endings):
        framework = "MindSpore" if file.from_pytorch else "PyTorch"
        raise UserError(f"{target}: the output is for {framework}, its ending must be one of {', '.join(endings)}")
    if file.identity is None:
        raise UserError(f"{source}: holds no network that this project knows")
    network = create_network(file.identity.variant, file.identity.num_classes or 1, width=file.identity.width)
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    problems = compare(parameters, file.weights)
    if problems:
        raise UserError(f"{source}: holds {file.identity}, but {'; '.join(problems)}")
    set_parameters(parameters, file.weights)

    ported = file.weights if file.from_pytorch else to_pytorch(file.weights)
    (write_weights if file.from_pytorch else write_pytorch)(ported, target)
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
