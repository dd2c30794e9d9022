"""Evaluate a checkpoint or an exported file: python eval.py --checkpoint_path FILE --data_url DIR"""

import json

from src.command_line import add_overrides, add_weights, build_parser, read_config, start_runtime
from src.console import run
from src.files import write_text
from src.inference.loading import cache_graphs, load_network
from src.tasks import create_task


def parse_arguments():
    parser = build_parser(__doc__)
    add_weights(parser)
    parser.add_argument("--output", metavar="FILE", help="write the result as JSON")
    parser.add_argument("--output_dir", metavar="DIR", help="write details, such as predictions, as CSV")
    add_overrides(parser)
    return parser.parse_intermixed_args()


def main():
    arguments = parse_arguments()
    config = read_config(arguments, arguments.checkpoint_path)
    runtime = start_runtime(config, training=False)
    task = create_task(config)
    network, loaded = load_network(task, arguments.checkpoint_path, arguments.weights)
    dataset = task.build_dataset("val", runtime.ranks)
    is_main = runtime.ranks.is_main
    for message in [loaded, *dataset.notes] if is_main else ():
        print(message)
    network = cache_graphs(network, config, runtime.device_target)
    result = task.evaluate(network, dataset, arguments.output_dir if is_main else None)
    if not is_main:
        return
    if arguments.output:
        write_text(arguments.output, json.dumps(result, indent=2) + "\n")
    print("result:", result, "ckpt=", arguments.checkpoint_path)


if __name__ == "__main__":
    run(main)
