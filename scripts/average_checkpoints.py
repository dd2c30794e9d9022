"""Average the weights of checkpoints: python scripts/average_checkpoints.py A.ckpt B.ckpt --output C.ckpt

The mean of all parameters, statistics of batch normalisation among them, is evaluated beside each of the checkpoints,
with the settings of their run, and then written. Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and
Better Generalization", UAI 2018, https://arxiv.org/abs/1803.05407; there, the statistics are computed anew instead.
"""

import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.command_line import add_overrides, add_preference, build_parser, is_override, read_config, start_runtime
from src.console import run
from src.errors import UserError
from src.files import refuse_existing
from src.inference.finite import FiniteNetwork
from src.tasks import create_task
from src.training.setup import choose_metric
from src.weights import load_weights, save_weights
from src.weights.files import set_parameters

MEAN = "mean"
ENDINGS = (".ckpt", ".safetensors")


def parse_arguments():
    parser = build_parser(__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT", help="weights files of the same network")
    parser.add_argument("--run", metavar="DIR", help="take the epoch_N.ckpt of a run, see train.keep_best")
    parser.add_argument("--output", required=True, metavar="FILE", help="file to write")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    add_preference(parser)
    add_overrides(parser)
    arguments = parser.parse_intermixed_args()
    arguments.overrides = [*filter(is_override, arguments.checkpoints), *arguments.overrides]
    arguments.checkpoints = [name for name in arguments.checkpoints if not is_override(name)]
    if bool(arguments.checkpoints) == bool(arguments.run):
        parser.error("either CHECKPOINT or --run is needed")
    return arguments


def list_checkpoints(arguments) -> list:
    """Give the paths of the checkpoints, at least two."""
    paths = arguments.checkpoints
    if arguments.run:
        if not Path(arguments.run).is_dir():
            raise UserError(f"{arguments.run}: no such folder, --run takes that of a run")
        numbers = {path: re.fullmatch(r"epoch_(\d+)", path.stem) for path in Path(arguments.run).glob("epoch_*.ckpt")}
        paths = sorted((path for path, number in numbers.items() if number), key=lambda path: int(numbers[path][1]))
    if len(paths) < 2:
        found = f"{len(paths)} checkpoint{'s' * (len(paths) != 1)}"
        if arguments.run:
            found = f"{arguments.run}: has {len(paths)} of epoch_N.ckpt, of which train.keep_best keeps the best"
        raise UserError(f"{found}, a mean needs at least two")
    return paths


def read_all(network, paths, prefer) -> list:
    """Load each file into a network, which it must fit, and give its {name: array}."""
    weights = []
    for path in paths:
        load_weights(network, path, prefer)
        weights.append({parameter.name: parameter.asnumpy().copy() for parameter in network.get_parameters()})
    return weights


def average(weights) -> dict:
    """Give {name: mean, float32} of a list of {name: array}, computed in float64."""
    return {
        name: np.mean([arrays[name] for arrays in weights], axis=0, dtype=np.float64).astype(np.float32)
        for name in weights[0]
    }


def main():
    arguments = parse_arguments()
    if Path(arguments.output).suffix not in ENDINGS:
        raise UserError(f"--output {arguments.output}: its ending must be one of {', '.join(ENDINGS)}")
    refuse_existing(arguments.output, arguments.force)
    paths = list_checkpoints(arguments)
    config = read_config(arguments, paths[0])
    runtime = start_runtime(config, training=False)
    task = create_task(config)
    network = task.build_network()
    weights = read_all(network, paths, arguments.weights)
    dataset = task.build_dataset("val", runtime.ranks)
    evaluated = task.build_evaluation_network(network)
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    metric, _ = choose_metric(task, config.train.best_metric)
    for name, arrays in zip([*paths, MEAN], [*weights, average(weights)]):
        set_parameters(parameters, arrays)
        result = task.evaluate(FiniteNetwork(evaluated, name), dataset)
        if runtime.ranks.is_main:
            print(f"{name}: {metric} {result[metric]}")
    if runtime.ranks.is_main:
        save_weights(network, arguments.output)
        print(f"wrote {arguments.output}: the mean of {len(paths)} checkpoints")


if __name__ == "__main__":
    run(main)
