"""Classification as a task: what train.py, eval.py and export.py need to know about it."""

import dataclasses
import time
from pathlib import Path

import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from src.classification.augment import CenterCrop, MindSporeCenterCrop, TrainTransform
from src.classification.dataset import LoadSample, SkipBroken, find_split, list_samples
from src.classification.imagenet import load_classes, read_labels
from src.classification.loss import ClassificationLoss
from src.classification.metrics import TOP, ClassificationMetrics
from src.classification.rand_augment import RandAugment
from src.classification.random_erasing import RandomErasing
from src.classification.settings import ClassificationConfig
from src.compile_cache import run_cached
from src.errors import UserError
from src.ghostnetv2 import create_network
from src.images import find_images, load_image, normalise
from src.pipeline import build_batches
from src.samples import evaluation_samples, training_samples


class ClassificationTask:
    """Image classification on folders of pictures.

    `config` is completed by what the data tell: the class names.
    """

    best_metric = "top_1_accuracy"
    has_fixed_size = False

    def __init__(self, config: ClassificationConfig):
        self.config = config
        self.evaluated_files = []  # of the last validation set that was built
        self.listed = {}  # paths and labels of each split
        self.skip_broken = None  # of all training sets, so that each broken file is named once

    def build_dataset(self, split, runtime, first_epoch=0, first_step=0):
        """Pipeline of (images, labels) for 'train', (images, labels, keys) for 'val'.

        Images are float32 (B, 3, size, size), normalised, labels int32 (B,), keys (epoch, index) int64 (B, 2). The
        last batch of 'val' may be short.

        Args:
            split: 'train' or 'val'.
            runtime: `Runtime`; each process takes its share.
            first_epoch, first_step: where training begins: number of the epoch, and of its batch on this
                process. With a `first_step` above 0, the pipeline is the rest of that one epoch.

        Raises:
            UserError: if the data are not there, are too few, or their classes are not the network's.
        """
        folder = find_split(self.config.data.path, split)
        if split not in self.listed:  # of a million files, once
            self.listed[split] = self.list_samples(folder, split)
        paths, labels = self.listed[split]
        if split == "train":
            return self._build_training(folder, paths, labels, runtime, first_epoch, first_step)
        samples = evaluation_samples(labels, folder, runtime)
        self.evaluated_files = paths
        load = LoadSample(paths, self.build_transform(training=False), self.config.runtime.seed)
        return self._build_batches(samples, load, self.config.evaluation.batch_size)

    def _build_training(self, folder, paths, labels, runtime, first_epoch, first_step):
        """The pipeline of whole updates: every process has the same number of them."""
        train, augment, seed = self.config.train, self.config.augment, self.config.runtime.seed
        samples = training_samples(labels, folder, train, seed, runtime, first_epoch, first_step)
        if self.config.data.broken_images == "skip":
            self.skip_broken = self.skip_broken or SkipBroken(paths, labels)
        load = LoadSample(paths, self.build_transform(training=True), seed, self.skip_broken)
        finish = []
        if augment.erase_probability > 0:
            finish.append(RandomErasing(augment.erase_probability, augment.erase_mode, seed))
        return self._build_batches(samples, load, train.batch_size, finish).project(["image", "label"])

    def _build_batches(self, samples, load, batch_size, finish=()):
        data, columns = self.config.data, ["image", "label", "key"]
        return build_batches(
            samples, load, columns, batch_size, data.mean, data.std, finish, data.workers, data.worker_processes
        )

    def list_samples(self, folder, split):
        """Image paths and int32 labels of a split; takes the class names over into `config`."""
        data, num_classes = self.config.data, self.config.network.num_classes
        names = load_classes()[0] if data.class_index == "imagenet" else data.class_names
        has_folders = any(entry.is_dir() for entry in folder.iterdir())
        if split == "val" and data.val_labels and not has_folders:
            paths = find_images(folder)
            labels = read_labels(data.val_labels, paths, names)
        else:
            names, paths, labels = list_samples(folder, names)
        if len(names) != num_classes:
            if data.class_index == "imagenet":
                raise UserError(
                    f"data.class_index: imagenet has {len(names)} classes, the network {num_classes}; "
                    "data.class_index=folders counts the folders"
                )
            raise UserError(
                f"{folder}: has {len(names)} classes, the network {num_classes}; "
                f"--num_classes {len(names)} builds one that fits"
            )
        if data.class_index == "folders":
            self.config = dataclasses.replace(self.config, data=dataclasses.replace(data, class_names=names))
        return paths, labels

    def class_names(self):
        """Names of the classes for people, in index order."""
        if self.config.data.class_index == "imagenet":
            return load_classes()[1]
        numbered = tuple(f"class {index}" for index in range(self.config.network.num_classes))
        return self.config.data.class_names or numbered

    def build_transform(self, training: bool):
        """The transform of training or of evaluation."""
        data, augment = self.config.data, self.config.augment
        if not training:
            center_crop = MindSporeCenterCrop if data.eval_decoder == "mindspore" else CenterCrop
            return center_crop(data.image_size, data.eval_resize, data.interpolation)
        interpolation = augment.interpolation or data.interpolation
        return TrainTransform(
            data.image_size,
            augment.crop_scale,
            augment.crop_ratio,
            augment.flip,
            augment.color_jitter,
            interpolation,
            augment.rand_augment and RandAugment(augment.rand_augment, data.mean, interpolation),
        )

    def build_network(self):
        """Images (N, 3, H, W) -> logits (N, classes)."""
        network = self.config.network
        return create_network(network.name, network.num_classes, dropout=network.dropout, **network.backbone_options())

    def attach_loss(self, network):
        """(images, labels) -> scalar loss."""
        return ClassificationLoss(network, self.config.loss.label_smoothing)

    def evaluate(self, network, dataset, output_dir=None) -> dict:
        """Metrics over every image once, on all processes together.

        Args:
            network: from `build_network`.
            dataset: from `build_dataset` for 'val'. A short last batch is filled up, so one graph serves all.
            output_dir: folder for `per_class.csv` and `predictions.csv`; None writes neither.
        """
        network.set_train(False)
        metrics, batch_size, start = ClassificationMetrics(len(self.evaluated_files)), None, 0.0
        batches = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
        progress = {"total": dataset.get_dataset_size(), "desc": "evaluate", "unit": "batch", "leave": False}
        for images, labels, keys in tqdm(batches, **progress, disable=None):
            batch_size = batch_size or len(images)
            filling = np.zeros((batch_size - len(images), *images.shape[1:]), images.dtype)
            logits = run_cached(network, Tensor(np.concatenate((images, filling)))).asnumpy()
            metrics.update(keys[:, 1], logits[: len(labels)], labels)
            start = start or time.monotonic()  # the first batch compiles the graph
        own, seconds = metrics.seen.sum() - batch_size, time.monotonic() - start
        metrics.gather()
        if output_dir:
            metrics.write_reports(Path(output_dir), self.evaluated_files, self.class_names())
        return {**metrics.result(), "images_per_second": float(own / seconds) if own > 0 else None}

    def build_export_network(self, network):
        """The network to export, the shapes of its inputs without the batch, and its input and output names."""
        size = self.config.data.image_size
        return network, {"image": (3, size, size)}, ("logits",)

    def predict(self, network, paths, output_dir=None):
        """Yield a line a picture, then one line for each of its five most probable classes.

        Args:
            network: from `build_network`.
            paths: image files.
            output_dir: not used, this task draws nothing.
        """
        network.set_train(False)
        data = self.config.data
        transform = self.build_transform(training=False)
        names = self.class_names()
        for path in paths:
            image = normalise(np.asarray(transform(load_image(path)))[None], data.mean, data.std)
            logits = run_cached(network, Tensor(image)).asnumpy()[0].astype(np.float64)
            probabilities = np.exp(logits - logits.max())
            probabilities /= probabilities.sum()
            yield f"{path}"
            for index in np.argsort(-probabilities, kind="stable")[:TOP]:
                yield f"  {probabilities[index]:7.2%}  {names[index]}"
