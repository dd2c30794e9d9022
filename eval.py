"""Evaluate a checkpoint or an exported file: python eval.py --checkpoint_path FILE --data_url DIR"""

import json

from src.checkpoint import write_text
from src.command_line import add_overrides, add_weights, build_parser, read_config, run
from src.inference import load_network
from src.runtime import init_runtime
from src.tasks import SCHEMAS, create_task


def parse_arguments():
    parser = build_parser(__doc__)
    add_weights(parser)
    parser.add_argument("--output", metavar="FILE", help="write the result as JSON")
    parser.add_argument("--output_dir", metavar="DIR", help="write details, such as predictions, as CSV")
    add_overrides(parser)
    return parser.parse_intermixed_args()


def main():
    arguments = parse_arguments()
    config = read_config(arguments, SCHEMAS, arguments.overrides, arguments.checkpoint_path)
    runtime = init_runtime(**vars(config.runtime))
    task = create_task(config)
    network, loaded = load_network(task, arguments.checkpoint_path, arguments.weights)
    print(loaded)
    details = arguments.output_dir if runtime.is_main else None
    result = task.evaluate(network, task.build_dataset("val", runtime), details)
    if not runtime.is_main:
        return
    if arguments.output:
        write_text(arguments.output, json.dumps(result, indent=2) + "\n")
    print("result:", result, "ckpt=", arguments.checkpoint_path)


if __name__ == "__main__":
    run(main)
