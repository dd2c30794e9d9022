"""Train GhostNetV2 on any of its tasks: python train.py --config configs/classification/digits.yaml"""

import shlex
import sys
from pathlib import Path

from src.checkpoint import load_weights
from src.command_line import DEFAULT_CONFIG, INTERRUPTED, add_overrides, add_preference, build_parser, read_config, run
from src.config import dump_config, load_config
from src.run_folder import AUTO, RunFolder, find_run, new_folder
from src.runtime import init_runtime, wait_for_ranks
from src.tasks import SCHEMAS, create_task
from src.training import Training, check_same_settings


def parse_arguments():
    parser = build_parser(__doc__)
    parser.add_argument("--pre_trained", metavar="FILE", help="checkpoint to start from")
    parser.add_argument("--finetune", action="store_true", help="take all of --pre_trained but its classifier")
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
    config = read_config(arguments, SCHEMAS, arguments.overrides)
    runtime = init_runtime(config.runtime.device_target, config.runtime.seed, config.runtime.graph_mode)
    task = create_task(config)
    train_data, val_data = task.build_dataset("train", runtime), task.build_dataset("val", runtime)
    network = task.build_network()
    messages = []
    if arguments.pre_trained and not checkpoint:  # a run that goes on has weights of its own
        messages.append(load_weights(network, arguments.pre_trained, arguments.weights, arguments.finetune))

    training = Training(task, runtime, network, train_data.get_dataset_size())
    if checkpoint:
        messages += check_same_settings(load_config(folder.config, SCHEMAS), task.config)
        training.state.restore(checkpoint)
        messages.append(f"resumed from {checkpoint}: epoch {training.history.epoch}, batch {training.history.step}")
    messages.append(f"{config.network.name}: {training.epochs} epochs of {training.history.steps_per_epoch} batches")
    messages += [training.describe(), f"run in {folder.path}"]
    wait_for_ranks()  # all have looked for the folder before one makes it
    if runtime.is_main:
        folder.make()
        folder.write_settings(dump_config(task.config), shlex.join(["python", *sys.argv]))
        if checkpoint:
            folder.write_metrics(training.history.rows)  # a killed run may have saved more than it wrote
        for message in messages:
            print(message)
            folder.log(message)

    try:
        training.run(training.build_callbacks(folder, val_data))
    except KeyboardInterrupt:
        training.history.interrupted = True
    if not runtime.is_main:
        return
    if training.history.interrupted and training.history.epoch < training.epochs:
        print(f"interrupted; --resume {folder.path} goes on from {folder.last}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print(f"evaluate with: {folder.evaluation_command()}")


if __name__ == "__main__":
    run(main)
