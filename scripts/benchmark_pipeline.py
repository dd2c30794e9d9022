"""Input pipelines of scripts/benchmark.py: this project's and timm's on the same images, with the same settings.

What one of them does not do is left out and named, see `describe_left_out`.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

WARM_UP = 0.2  # share of the batches that are not timed: workers start, queues fill


def measure_pipeline(name, options) -> dict:
    """{'images_per_second': of one pass over the images, 'notes': lines on what was left out}.

    Args:
        name: 'train' or 'val', a colon, and one of 'threads', 'processes', 'mindspore' (val only) and 'timm'.
        options: data_url, config, samples, batch, workers.
    """
    split, kind = name.split(":")
    if kind == "timm":
        import timm.data  # noqa: F401 - loads Pillow before `src` sets its environment
    from src.config import load_config
    from src.data.images import find_images
    from src.tasks import SCHEMAS

    config = load_config(options["config"], SCHEMAS)
    found, _ = find_images(Path(options["data_url"]))
    paths = [found[index % len(found)] for index in range(options["samples"])]
    build = timm_batches if kind == "timm" else own_batches
    batches = build(config, paths, split, kind, options)
    skipped = max(1, int(WARM_UP * options["samples"] / options["batch"]))
    count = 0
    for index, images in enumerate(batches):
        if index == skipped:
            start = time.perf_counter()
        elif index > skipped:
            count += len(images)
    speed = count / (time.perf_counter() - start)
    return {"images_per_second": speed, "notes": describe_left_out(config) if split == "train" else []}


def describe_left_out(config) -> list:
    """Lines on settings of the augmentation that a pipeline goes without."""
    notes, augment = [], config.augment
    if augment.policy and not has_policy(augment.policy):
        notes.append(f"left out of timm's pipeline, which does not have it: augment.policy={augment.policy}")
    if augment.mixes:
        notes.append("left out of all pipelines: mixup and CutMix, which mix whole batches")
    return notes


def has_policy(text) -> bool:
    """Whether timm has a policy of this project."""
    from src.classification.trivial_augment import NAME

    return text != NAME


def own_batches(config, paths, split, kind, options):
    """Batches of this project's pipeline."""
    from src.classification.dataset import LoadImage
    from src.classification.random_erasing import RandomErasing
    from src.classification.task import ClassificationTask
    from src.data.pipeline import build_batches
    from src.data.sampler import EpochSampler

    data, augment, training = config.data, config.augment, split == "train"
    decoder = "mindspore" if kind == "mindspore" else "pillow"
    data = replace(data, workers=options["workers"], worker_processes=kind == "processes", eval_decoder=decoder)
    transform = ClassificationTask(replace(config, data=data)).build_transform(training)
    erase = []
    if training and augment.erase_probability > 0:
        erase.append(RandomErasing(augment.erase_probability, augment.erase_mode, seed=0))
    sampler = EpochSampler(np.zeros(len(paths), np.int32), seed=0, shuffle=training, rank=0, ranks=1)
    load, columns = LoadImage(paths, transform, 0, None, False), ["image", "label", "key"]
    dataset = build_batches(sampler, load, columns, options["batch"], data, erase)
    for row in dataset.create_tuple_iterator(num_epochs=1, output_numpy=True):
        yield row[0]


def timm_batches(config, paths, split, kind, options):
    """Batches of timm's loader."""
    import timm.data
    import torch
    from PIL import Image

    class Images(torch.utils.data.Dataset):
        transform = None  # timm's loader sets it

        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            with Image.open(paths[index]) as image:
                return self.transform(image.convert("RGB")), 0

    data = config.data
    shared = {"batch_size": options["batch"], "mean": data.mean, "std": data.std, "num_workers": options["workers"]}
    shared.update(device=torch.device("cpu"), persistent_workers=False)
    shared.update(timm_transform(config, split == "train"))
    loader = timm.data.create_loader(Images(), (3, data.image_size, data.image_size), **shared)
    for images, _ in loader:
        yield images


def timm_transform(config, training) -> dict:
    """The arguments of timm's `create_loader` that say what its transform does."""
    data, augment = config.data, config.augment
    if not training:
        crop_mode, share = config.evaluation.crop_mode, data.image_size / data.eval_resize
        return {"crop_pct": share, "crop_mode": crop_mode, "interpolation": data.interpolation}
    return {
        "is_training": True,
        "scale": augment.crop_scale,
        "ratio": augment.crop_ratio,
        "hflip": augment.flip,
        "vflip": augment.vertical_flip,
        "color_jitter": augment.color_jitter or None,  # of 0, timm would call it nevertheless
        "grayscale_prob": augment.grayscale,
        "gaussian_blur_prob": augment.gaussian_blur,
        "auto_augment": augment.policy if augment.policy and has_policy(augment.policy) else None,
        "re_prob": augment.erase_probability,
        "re_mode": augment.erase_mode,
        "interpolation": augment.interpolation or data.interpolation,
    }
