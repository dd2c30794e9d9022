"""Train GhostNetV2 on any of its tasks: python train.py --config configs/classification/digits.yaml"""

import shlex
import sys
from pathlib import Path

import numpy as np

from src.command_line import DEFAULT_CONFIG, add_overrides, add_preference, build_parser, read_config, start_runtime
from src.config import check_same_settings, dump_config, load_config
from src.console import run
from src.errors import UserError
from src.interrupt import INTERRUPTED
from src.settings import with_class_names
from src.tasks import SCHEMAS, create_task
from src.training.finetuning import describe_frozen
from src.training.run import train
from src.training.run_folder import AUTO, RunFolder, find_run, new_folder
from src.training.setup import build_run, describe_batch
from src.weights import load_weights


def parse_arguments():
    parser = build_parser(__doc__)
    parser.add_argument("--pre_trained", metavar="FILE", help="weights to start from, or the name of fetched ones")
    parser.add_argument("--finetune", action="store_const", const=True, help="take all of it but its classifier")
    add_preference(parser)
    parser.add_argument("--output_dir", metavar="DIR", help="new folder for the run; default: runs/NAME-OF-CONFIG")
    parser.add_argument("--resume", nargs="?", const=AUTO, metavar="auto|PATH", help="go on with a run, if any")
    add_overrides(parser)
    arguments = parser.parse_intermixed_args()
    if arguments.resume and "=" in arguments.resume:  # a setting behind a bare --resume
        arguments.overrides.insert(0, arguments.resume)
        arguments.resume = AUTO
    return arguments


def choose_folder(arguments):
    """(RunFolder, checkpoint to go on from or None); settles which settings to read, too."""
    name = Path(arguments.config or DEFAULT_CONFIG).stem
    folder = checkpoint = None
    if arguments.resume:
        folder, checkpoint = find_run(arguments.resume, arguments.output_dir, name)
    folder = RunFolder(folder or new_folder(arguments.output_dir, name))
    if arguments.config is None:
        arguments.config = str(folder.config if folder.config.is_file() else DEFAULT_CONFIG)
    return folder, checkpoint


def main():
    arguments = parse_arguments()
    folder, checkpoint = choose_folder(arguments)
    warnings = []
    config = read_config(arguments, warnings=warnings)
    runtime = start_runtime(config, training=True)
    train_data = create_task(config).build_dataset("train", runtime.ranks)
    config = with_class_names(config, train_data.class_names)
    task = create_task(config)
    val_data = task.build_dataset("val", runtime.ranks)
    messages = [*train_data.notes, *val_data.notes]
    if not checkpoint:  # a run that goes on has said so before, and its own file has every setting
        messages += warnings
    network = task.build_network()
    start = config.train.pre_trained
    if start and not checkpoint:  # a run that goes on has weights of its own
        messages.append(load_weights(network, start, arguments.weights, config.train.finetune))

    training = build_run(task, config, runtime, network, train_data)
    history = training.history
    if checkpoint:
        messages += check_same_settings(load_config(folder.config, SCHEMAS), config)
        training.state.restore(checkpoint)
        messages.append(f"resumed from {checkpoint}: epoch {history.epoch}, batch {history.batch}")
    messages.append(f"{config.network.name}: {training.epochs} epochs of {history.batches_per_epoch} batches")
    messages += describe_frozen(network, config.train.freeze)
    messages += [describe_batch(config, runtime), f"run in {folder.path}"]
    # behind it, all have looked for the folder before one makes it
    if not runtime.ranks.agree(np.array([history.epoch, history.batch])):
        raise UserError(f"{folder.path}: the processes find different checkpoints in it; all must see the same folder")
    if runtime.ranks.is_main:
        folder.begin(dump_config(config), shlex.join(["python", *sys.argv]), history.rows, messages)

    try:
        is_whole = train(training, folder, val_data)
    except KeyboardInterrupt:
        is_whole = history.epoch >= training.epochs
    if not runtime.ranks.is_main:
        return
    if not is_whole:
        print(f"interrupted; --resume {folder.path} goes on from {folder.last}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print(f"evaluate with: {folder.evaluation_command()}")


if __name__ == "__main__":
    run(main)
