"""Predict images: python scripts/predict.py IMAGE_OR_FOLDER... --checkpoint_path FILE"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.command_line import add_weights, build_parser, parse_images, read_config, start_runtime
from src.console import run
from src.data.images import list_images
from src.inference.loading import cache_graphs, load_network
from src.inference.prediction import ResultFiles, add_result_flags, tell_predictions
from src.layers.arrays import ArrayNetwork
from src.tasks import create_task


def parse_arguments():
    parser = build_parser(__doc__)
    add_weights(parser)
    add_result_flags(parser)
    return parse_images(parser)


def main():
    arguments = parse_arguments()
    results = ResultFiles(arguments.csv, arguments.json)
    config = read_config(arguments, arguments.checkpoint_path)
    paths, notes = list_images(arguments.images)
    runtime = start_runtime(config, training=False)
    task = create_task(config)
    network, loaded = load_network(task, arguments.checkpoint_path, arguments.weights)
    network = cache_graphs(network, config, runtime.device_target)
    for line in (loaded, *notes):
        print(line)
    tell_predictions(task.build_predictor(ArrayNetwork(network)), paths, results, arguments.output_dir)


if __name__ == "__main__":
    run(main)
