"""Export a checkpoint: python export.py --checkpoint_path FILE --file_name NAME --file_format MINDIR"""

from pathlib import Path

from src.checkpoint import load_weights
from src.command_line import add_overrides, add_weights, build_parser, read_config, run
from src.deploy import FILE_FORMATS, export
from src.errors import UserError
from src.runtime import init_runtime
from src.tasks import SCHEMAS, create_task


def parse_arguments():
    parser = build_parser(__doc__)
    add_weights(parser)
    parser.add_argument("--file_format", choices=FILE_FORMATS, default="MINDIR", help="format of the file")
    parser.add_argument("--file_name", default="ghostnetv2", metavar="NAME", help="file to write; the ending is added")
    parser.add_argument("--batch_size", type=int, default=1, metavar="N", help="images in one call of the network")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    add_overrides(parser)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.batch_size < 1:
        raise UserError(f"--batch_size {arguments.batch_size} is out of range: at least 1")
    ending = f".{arguments.file_format.lower()}"
    path = Path(arguments.file_name.removesuffix(ending) + ending)
    if path.exists() and not arguments.force:
        raise UserError(f"{path}: exists; --force overwrites it")
    config = read_config(arguments, SCHEMAS, arguments.overrides, arguments.checkpoint_path)
    init_runtime(config.runtime.device_target, config.runtime.seed)
    task = create_task(config)
    network = task.build_network()
    print(load_weights(network, arguments.checkpoint_path, arguments.weights))
    cell, inputs, outputs = task.build_export_network(network)
    shapes = {name: (arguments.batch_size, *shape) for name, shape in inputs.items()}
    difference = export(cell, path, arguments.file_format, shapes.values())
    described = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    print(f"inputs: {described} float32; outputs: {', '.join(outputs)}")
    print(f"exported {path} ({path.stat().st_size / 1e6:.1f} MB), loaded back: differs by {difference:.1e} at most")


if __name__ == "__main__":
    run(main)
