"""Predict images: python scripts/predict.py IMAGE_OR_FOLDER... --checkpoint_path FILE"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.command_line import add_weights, build_parser, read_config, start_runtime
from src.console import run
from src.data.images import list_images
from src.inference.loading import cache_graphs, load_network
from src.inference.prediction import ResultFiles, add_result_flags, tell_predictions
from src.layers.arrays import ArrayNetwork
from src.tasks import create_task

EXIF_ROTATION = "data.exif_rotation"


def parse_arguments():
    parser = build_parser(__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, or folders of images")
    add_weights(parser)
    add_result_flags(parser)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="section.key=value", help="settings to change; as well at the end"
    )
    arguments = parser.parse_intermixed_args()
    arguments.overrides = [*arguments.set, *filter(is_override, arguments.images)]
    arguments.images = [name for name in arguments.images if not is_override(name)]
    if not arguments.images:
        parser.error("no IMAGE is given")
    return arguments


def is_override(text):
    """Whether an argument is a setting, `section.key=value`, and not the name of a file."""
    return re.match(r"\w+(\.\w+)+=", text) is not None and not Path(text).exists()


def main():
    arguments = parse_arguments()
    arguments.overrides.insert(0, f"{EXIF_ROTATION}=true")  # photographs are seen as people see them, unless told not
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
