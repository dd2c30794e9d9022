"""Export a checkpoint: python export.py --checkpoint_path FILE --file_name NAME --file_format MINDIR"""

import os
import re
from functools import partial
from pathlib import Path

from src.command_line import add_overrides, add_weights, build_parser, read_config
from src.config import dump_config
from src.console import run
from src.errors import UserError
from src.export.export import FILE_FORMATS, WEIGHTS_TYPES, export
from src.export.exported import PROBABILITIES, SETTINGS, with_image_size
from src.files import refuse_existing
from src.inference.calibration import find_calibration_images, record_inputs
from src.predictors import PREDICTION, dump_options
from src.runtime import check_memory, init_runtime
from src.tasks import create_task
from src.weights import load_weights


def parse_arguments():
    parser = build_parser(__doc__)
    add_weights(parser)
    parser.add_argument("--file_format", choices=FILE_FORMATS, default="MINDIR", help="format of the file")
    parser.add_argument("--file_name", default="ghostnetv2", metavar="NAME", help="file to write; the ending is added")
    batch = parser.add_mutually_exclusive_group()
    batch.add_argument("--batch_size", type=int, default=1, metavar="N", help="images in one call of the network")
    batch.add_argument("--dynamic_batch", action="store_true", help="any number of images in one call")
    parser.add_argument("--image_size", metavar="HxW", help="input in pixels; default: data.image_size, square")
    parser.add_argument("--softmax", action="store_true", help="end in probabilities instead of logits")
    parser.add_argument(
        "--fold_bn", choices=("true", "false"), default="true", help="fold BatchNorm into the convolutions"
    )
    parser.add_argument(
        "--weights_type", choices=WEIGHTS_TYPES, default="float32", help="of ONNX and TFLITE; float16 halves the file"
    )
    parser.add_argument("--calibration_data", metavar="FOLDER", help="images that --weights_type int8 is fitted to")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    add_overrides(parser)
    return parser.parse_intermixed_args()


def choose_path(name, ending):
    """Path of the file to write, of a name with or without its ending."""
    stem = name.removesuffix(ending)
    if Path(stem).name in ("", "..") or stem.endswith(("/", os.sep)):
        raise UserError(f"--file_name {name!r}: names no file")
    return Path(stem + ending)


def check_signature(arguments, signature):
    """Raise `UserError` where the flags ask for what the task's network does not have."""
    if arguments.softmax and signature.logit_classes is None:
        given = ", ".join(signature.output_names)
        raise UserError(f"--softmax: is for one output of logits, this network gives {given}")
    if arguments.image_size and signature.has_fixed_size:
        raise UserError("--image_size: this network's outputs are for one size, which data.image_size=N sets")


def choose_calibration(arguments):
    """Find the images that int8 is fitted to; None for other types."""
    if arguments.weights_type != "int8":
        if arguments.calibration_data is not None:
            raise UserError("--calibration_data: is for --weights_type int8")
        return None
    if arguments.calibration_data is None:
        raise UserError("--weights_type int8: needs --calibration_data FOLDER, images that the network is made for")
    return find_calibration_images(arguments.calibration_data)


def choose_shape(arguments, signature):
    """(channels, height, width) of the input; raises `UserError` where the machine's memory is too small for it."""
    shape = signature.input_shape
    if arguments.image_size:
        shape = (shape[0], *read_image_size(arguments.image_size))
        check_memory(f"--image_size {arguments.image_size}", "an image", *shape)
    if arguments.batch_size < 1:
        raise UserError(f"--batch_size {arguments.batch_size} is out of range: at least 1")
    check_memory(f"--batch_size {arguments.batch_size}", "images", arguments.batch_size, *shape)
    return shape


def read_image_size(text):
    """Read (height, width) from '192x256'."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise UserError(f"--image_size {text!r} is not of the form HxW, such as 192x256")
    return int(match[1]), int(match[2])


def main():
    arguments = parse_arguments()
    path = choose_path(arguments.file_name, f".{arguments.file_format.lower()}")
    refuse_existing(path, arguments.force)
    config = read_config(arguments, arguments.checkpoint_path)
    # files are made and compared on the CPU, where float32 is float32; AIR is for Ascend alone
    init_runtime(config.runtime.device_target if arguments.file_format == "AIR" else "CPU", config.runtime.seed, True)
    task = create_task(config)
    signature = task.export_signature()
    check_signature(arguments, signature)
    shape = choose_shape(arguments, signature)
    paths = choose_calibration(arguments)
    network = task.build_network()
    print(load_weights(network, arguments.checkpoint_path, arguments.weights))

    batch = None if arguments.dynamic_batch else arguments.batch_size
    options = {"batch": batch, "softmax": arguments.softmax, "fold": arguments.fold_bn == "true"}
    options.update(describe=task.describe, weights_type=arguments.weights_type)
    sized = with_image_size(config, shape[1:])
    sized_task = create_task(sized)
    options["calibrate"] = partial(record_inputs, build_predictor=sized_task.build_predictor, paths=paths)
    prediction = dump_options(config.task, sized_task.prediction_options())
    notes = {SETTINGS: dump_config(sized), PREDICTION: prediction}
    if arguments.file_format == "AIR":
        print("note: MindSpore 2.10 has deprecated AIR and will remove it; MINDIR takes its place")
    cell = task.build_export_network(network)
    difference = export(cell, path, arguments.file_format, shape, notes=notes, **options)
    outputs = (PROBABILITIES,) if arguments.softmax else signature.output_names
    sides = (*shape[1:], shape[0]) if arguments.file_format == "TFLITE" else shape  # channels last
    print(f"inputs: {signature.input_name} {(batch or 'any', *sides)} float32; outputs: {', '.join(outputs)}")
    checked = "not loaded back here" if difference is None else f"loaded back: differs by {difference:.1e} at most"
    print("images are scaled to [0, 1] and normalised with data.mean and data.std")
    print(f"exported {path} ({path.stat().st_size / 1e6:.1f} MB), {checked}")


if __name__ == "__main__":
    run(main)
