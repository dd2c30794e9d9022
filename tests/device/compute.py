"""What a network computes on a device: outputs, losses of a few steps, and the weights behind them.

python tests/device/compute.py {CPU,GPU,Ascend} TASK FILE WEIGHTS [section.key=value ...]      from the project's root

Images and labels are the same everywhere, and the weights those of the file WEIGHTS, which is written where it is
missing, so that the files of two devices can be compared.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

PROJECT = Path(__file__).resolve().parents[2]
CONFIGS = {
    "classification": "configs/classification/ghostnetv2_1x_imagenet.yaml",
    "detection": "configs/detection/yolov3_ghostnetv2_1x_coco.yaml",
    "segmentation": "configs/segmentation/deeplabv3_ghostnetv2_1x_ade20k.yaml",
}
BATCH, SIDE, STEPS, UPDATES = 4, 128, 5, 1000
SCHEDULE = ("schedule.warmup_epochs=0", "schedule.learning_rate=0.01", "schedule.reference_batch_size=null")


def compute(device, name, weights, settings) -> dict:
    """Run the evaluation network once, then `STEPS` training steps on one batch; draw random numbers."""
    from mindspore import Tensor, nn

    from scripts.random_weights import randomise
    from src.config import load_config, parse_override
    from src.layers.dropout import Dropout
    from src.runtime import init_runtime
    from src.tasks import SCHEMAS, create_task
    from src.training.setup import build_run
    from src.weights import load_weights, save_weights

    overrides = [parse_override(text) for text in (*SCHEDULE, f"train.batch_size={BATCH}", *settings)]
    config = load_config(PROJECT / CONFIGS[name], SCHEMAS, overrides)
    runtime = init_runtime(device, 1, graph_mode=True)
    task = create_task(config)
    network = task.build_network()
    if not Path(weights).exists():
        save_weights(randomise(network), weights)
    load_weights(network, weights)
    columns = [Tensor(column) for column in build_columns(config)]
    outputs = task.build_evaluation_network(network).set_train(False)(columns[0])
    outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    found = {f"output {i}": output.asnumpy().astype(np.float64) for i, output in enumerate(outputs)}
    data = SimpleNamespace(batches=UPDATES * config.train.accumulation_steps)
    run = build_run(task, config, runtime, network, data)
    step = run.train_step.set_train()
    before = read_parameters(network)
    losses = [float(step(*columns).asnumpy())]
    found.update({f"change {name}": value - before[name] for name, value in read_parameters(network).items()})
    losses += [float(step(*columns).asnumpy()) for _ in range(STEPS - 1)]
    found["losses"] = np.array(losses)
    found["skipped"] = np.array([float(step.skipped_updates.asnumpy().sum())])
    mask = nn.SequentialCell(Dropout(0.5)).set_train()
    found["masks"] = np.stack([mask(Tensor(np.ones((4, 3000), np.float32))).asnumpy() for _ in range(20)])
    return found


def read_parameters(network) -> dict:
    """Read {name: float64 array}, running statistics among them."""
    return {parameter.name: parameter.asnumpy().astype(np.float64) for parameter in network.get_parameters()}


def build_columns(config) -> list:
    """Draw a batch of the task's dataset."""
    draw = np.random.default_rng(0)
    side = config.data.image_size if config.task == "detection" else SIDE
    images = draw.standard_normal((BATCH, 3, side, side)).astype(np.float32)
    classes = config.network.num_classes
    if config.task == "classification":
        return [images, draw.integers(0, classes, BATCH).astype(np.int32)]
    if config.task == "segmentation":
        labels = draw.integers(0, classes, (BATCH, side, side)).astype(np.uint8)
        labels[:, :8] = 255  # ignored
        return [images, labels]
    count = config.data.max_boxes
    boxes, labels = np.zeros((BATCH, count, 4), np.float32), np.full((BATCH, count), -1, np.int32)
    corners, sizes = draw.uniform(0, 0.5 * side, (BATCH, 6, 2)), draw.uniform(10, 0.5 * side, (BATCH, 6, 2))
    boxes[:, :6], labels[:, :6] = np.concatenate([corners, corners + sizes], -1), draw.integers(0, classes, (BATCH, 6))
    return [images, boxes, labels]


if __name__ == "__main__":
    sys.path[0] = str(PROJECT)
    np.savez(sys.argv[3], **compute(*sys.argv[1:3], sys.argv[4], sys.argv[5:]))
