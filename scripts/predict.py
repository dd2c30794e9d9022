"""Predict pictures: python scripts/predict.py IMAGE_OR_FOLDER... --checkpoint_path FILE"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.command_line import add_weights, build_parser, read_config, run
from src.images import find_images
from src.inference import load_network
from src.runtime import init_runtime
from src.tasks import SCHEMAS, create_task


def parse_arguments():
    parser = build_parser(__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, or folders of pictures")
    add_weights(parser)
    parser.add_argument("--output_dir", metavar="DIR", help="folder for drawings, for tasks that draw")
    parser.add_argument("--set", nargs="*", default=[], metavar="section.key=value", help="settings to change")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    config = read_config(arguments, SCHEMAS, arguments.set, arguments.checkpoint_path)
    paths = [path for name in arguments.images for path in find_images(Path(name))]
    init_runtime(**vars(config.runtime))
    task = create_task(config)
    network, loaded = load_network(task, arguments.checkpoint_path, arguments.weights)
    print(loaded)
    for line in task.predict(network, paths, arguments.output_dir):
        print(line)


if __name__ == "__main__":
    run(main)
