"""A bad input, and the folder of good ones beside it."""

from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np
from detection.coco_files import write_split
from helpers import PROJECT, write_images
from PIL import Image

CLASSIFICATION, DETECTION, SEGMENTATION = (f"{name}.yaml" for name in ("classification", "detection", "segmentation"))
WEIGHTS = "weights.ckpt"  # of the network of `CLASSIFICATION`
COMMON = """
train: {epochs: 2, batch_size: 2}
evaluation: {batch_size: 1}
optimizer: {name: sgd}
schedule: {name: constant, warmup_steps: 0, warmup_epochs: 0, reference_batch_size: null}
"""
CONFIGS = {
    CLASSIFICATION: "data: {path: classes, image_size: 33, eval_resize: 33}",
    DETECTION: "data: {path: coco, image_size: 64, repeat: 1}",
    SEGMENTATION: "data: {path: ade, base_size: [64, 48], crop_size: [48, 48], image_size: [48, 64], class_names: []}",
}
BASES = {CLASSIFICATION: "digits", DETECTION: "bccd", SEGMENTATION: "camvid"}


@dataclass(frozen=True)
class BadInput:
    """A command that must end in exit status 2 and one line on standard error, `error: ...`.

    Attributes:
        script: such as train.py, started in a folder like that of `write_good_inputs`.
        arguments: of the command.
        message: what the line says, or a part of it.
        prepare: function of the folder, which puts the bad file there.
    """

    script: str
    arguments: tuple
    message: str
    prepare: Optional[Callable] = None


def write_good_inputs(folder):
    """Write a dataset and a configuration file for each task: `classes`, `coco` and `ade`, of two classes."""
    write_images(folder / "classes", {"train": {"a": 3, "b": 3}, "val": {"a": 1, "b": 1}})
    write_split(folder / "coco", "train2017")
    write_split(folder / "coco", "val2017")
    generator = np.random.default_rng(0)
    for split in ("training", "validation"):
        for name in ("0", "1", "2"):
            image, mask = (folder / "ade" / kind / split / f"{name}.png" for kind in ("images", "annotations"))
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (48, 64, 3), np.uint8)).save(image)
            Image.fromarray(generator.integers(0, 3, (48, 64), np.uint8)).save(mask)
    for name, data in CONFIGS.items():
        base = PROJECT / "configs" / name.removesuffix(".yaml") / f"{BASES[name]}.yaml"
        network = "network: {name: ghostnet_1x, num_classes: 2}"
        (folder / name).write_text(f"base: {base}\n{network}\n{data}{COMMON}")


def write_good_weights(folder):
    """Write `WEIGHTS`."""
    from src.ghostnetv2 import create_network
    from src.weights import save_weights

    save_weights(create_network("ghostnet_1x", 2), folder / WEIGHTS)
