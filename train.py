"""Train GhostNetV2 on any of its tasks: python train.py --config configs/classification/digits.yaml"""

import shlex
import sys
from pathlib import Path

from src.callbacks import History, build_callbacks
from src.checkpoint import load_weights, save_weights
from src.command_line import DEFAULT_CONFIG, INTERRUPTED, add_overrides, add_preference, build_parser, read_config, run
from src.config import dump_config
from src.errors import UserError
from src.optim import build_optimizer, build_schedule
from src.run_folder import RunFolder
from src.runtime import init_runtime
from src.tasks import SCHEMAS, create_task
from src.train_step import TrainStep


def parse_arguments():
    parser = build_parser(__doc__)
    parser.add_argument("--pre_trained", metavar="FILE", help="checkpoint to start from")
    parser.add_argument("--finetune", action="store_true", help="take all of --pre_trained but its classifier")
    add_preference(parser)
    parser.add_argument("--output_dir", metavar="DIR", help="new folder for the run; default: runs/NAME-OF-CONFIG")
    add_overrides(parser)
    arguments = parser.parse_args()
    arguments.config = arguments.config or str(DEFAULT_CONFIG)
    return arguments


def main():
    from mindspore import Model

    arguments = parse_arguments()
    config = read_config(arguments, SCHEMAS, arguments.overrides)
    settings = config.runtime
    runtime = init_runtime(settings.device_target, settings.seed, settings.graph_mode)
    if runtime.ranks > 1:
        raise UserError(f"training runs on one device, msrun started {runtime.ranks}; evaluation runs on any number")
    task = create_task(config)
    train_data, val_data = task.build_dataset("train", runtime), task.build_dataset("val", runtime)
    network = task.build_network()
    if arguments.pre_trained:
        print(load_weights(network, arguments.pre_trained, arguments.weights, arguments.finetune))

    epochs, steps = config.train.epochs, train_data.get_dataset_size()
    schedule, optimizer = config.schedule, config.optimizer
    rates = build_schedule(epochs=epochs, steps_per_epoch=steps, **vars(schedule))
    step = TrainStep(
        task.attach_loss(network),
        build_optimizer(
            network.trainable_params(),
            optimizer.name,
            rates,
            optimizer.weight_decay,
            optimizer.momentum,
            optimizer.betas,
            optimizer.epsilon,
        ),
        optimizer.clip_norm,
    )

    folder = RunFolder(arguments.output_dir, Path(arguments.config).stem)
    folder.write_settings(dump_config(task.config), shlex.join(["python", *sys.argv]))
    history = History()
    callbacks = build_callbacks(
        history,
        network,
        folder,
        lambda: task.evaluate(network, val_data),
        task.best_metric,
        rates,
        config.train.batch_size,
        config.train.evaluate_every,
    )
    print(f"{config.network.name} on {runtime.device_target}: {epochs} epochs of {steps} steps, run in {folder.path}")
    try:
        Model(step).train(epochs, train_data, callbacks=callbacks, dataset_sink_mode=False)
    except KeyboardInterrupt:
        history.interrupted = True
        save_weights(network, folder.last)
    if history.interrupted:
        print(f"interrupted; the weights so far are in {folder.last}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print(f"evaluate with: {folder.evaluation_command()}")


if __name__ == "__main__":
    run(main)
