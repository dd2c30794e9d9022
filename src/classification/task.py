"""Classification as a task: what the entry points and the training loop need to know about it."""

import os
from functools import partial
from pathlib import Path

from src.classification.center_crop import CenterCrop
from src.classification.dataset import LoadImage, SkipBroken, find_split, list_class_folders
from src.classification.export_graph import describe_classifier
from src.classification.imagenet import load_classes, read_labels
from src.classification.loss import ClassificationLoss, DistillationLoss, balance_classes
from src.classification.metrics import ClassificationMetrics
from src.classification.mirror import MirrorAverage
from src.classification.mixing import MixDraws, Mixing
from src.classification.policies import build_policy
from src.classification.predictor import ClassificationOptions, ClassificationPredictor
from src.classification.random_erasing import RandomErasing
from src.classification.settings import ClassificationConfig
from src.classification.teacher import load_teacher
from src.classification.transforms import ClassificationAugmentation, MindSporeCenterCrop
from src.data.dataset import Dataset
from src.data.images import describe_others, find_images
from src.data.list_cache import open_list_cache
from src.data.pipeline import build_batches
from src.data.sampler import evaluation_sampler, training_sampler
from src.errors import UserError
from src.export.export import ExportSignature
from src.inference.evaluation import evaluate_batches
from src.networks import create_network

COLUMNS = ["image", "label", "key"]


class ClassificationTask:
    """Image classification on folders of images; see `src.tasks.Task`."""

    metrics = {"top_1_accuracy": 1, "top_5_accuracy": 1, "loss": -1}
    best_metric = "top_1_accuracy"

    def __init__(self, config: ClassificationConfig):
        self.config = config

    def build_dataset(self, split, ranks) -> Dataset:
        """List a split; its records are the paths of the images.

        The pipeline of 'train' gives (images, labels), that of 'val' (images, labels, keys): images float32 (B, 3,
        size, size), normalised, labels int32 (B,), or targets float32 (B, classes) in training with mixup or CutMix,
        keys (epoch, index) int64 (B, 2).

        Raises:
            UserError: if the data are not there, are too few, or their classes are not the network's.
        """
        config, training = self.config, split == "train"
        folder = find_split(config.data.path, split)
        names, paths, labels, others = self._list_images(folder, split)
        skip_broken = None
        if training:
            sampler = training_sampler(labels, folder, config.train, config.runtime.seed, ranks)
            if config.data.broken_images == "skip":
                skip_broken = SkipBroken(paths, labels, config.data.exif_rotation)
        else:
            sampler = evaluation_sampler(labels, folder, ranks)
        transform, seed = self.build_transform(training), config.runtime.seed
        load = LoadImage(paths, transform, seed, skip_broken, config.data.exif_rotation)
        batch_size = config.train.batch_size if training else config.evaluation.batch_size
        build = partial(self._build_pipeline, load, batch_size, training)
        return Dataset(sampler, batch_size, build, paths, names, ranks, describe_others(folder, others))

    def _build_pipeline(self, load, batch_size, training, sampler):
        """Build the pipeline of a `Dataset`."""
        augment, transforms = self.config.augment, []
        if training and augment.erase_probability > 0:
            transforms.append(RandomErasing(augment.erase_probability, augment.erase_mode, self.config.runtime.seed))
        if training and augment.mixes:
            transforms.append(self.build_mixing())
        batches = build_batches(sampler, load, COLUMNS, batch_size, self.config.data, transforms)
        return batches.project(["image", "label"]) if training else batches

    def _list_images(self, folder, split):
        """List class names, for `Dataset`, image paths, labels, and the number of other files of a split."""
        data, num_classes = self.config.data, self.config.network.num_classes
        is_imagenet = data.class_index == "imagenet"
        names = load_classes()[0] if is_imagenet else data.class_names
        has_folders = any(entry.is_dir() for entry in os.scandir(folder))
        if split == "val" and data.val_labels and not has_folders:
            with open_list_cache(data.list_cache, folder) as scan:
                paths, others = find_images(folder, scan)
            labels = read_labels(data.val_labels, paths, names)
        else:
            names, paths, labels, others = list_class_folders(folder, names, data.list_cache)
        if len(names) != num_classes and is_imagenet:
            raise UserError(
                f"data.class_index: imagenet has {len(names)} classes, the network {num_classes}; "
                "data.class_index=folders counts the folders"
            )
        if len(names) != num_classes:
            raise UserError(
                f"{folder}: has {len(names)} classes, the network {num_classes}; "
                f"--num_classes {len(names)} builds one that fits"
            )
        return () if is_imagenet else tuple(names), paths, labels, others

    def class_names(self):
        """Give the names of the classes for people, in index order."""
        if self.config.data.class_index == "imagenet":
            return load_classes()[1]
        numbered = tuple(f"class {index}" for index in range(self.config.network.num_classes))
        return self.config.data.class_names or numbered

    def build_transform(self, training: bool):
        """Build the transform of training or of evaluation."""
        data, augment = self.config.data, self.config.augment
        if not training:
            arguments = data.image_size, data.eval_resize, data.interpolation
            if data.eval_decoder == "mindspore":
                return MindSporeCenterCrop(*arguments)
            return CenterCrop(*arguments, self.config.evaluation.crop_mode, data.mean)
        interpolation = augment.interpolation or data.interpolation
        return ClassificationAugmentation(
            data.image_size,
            augment.crop_scale,
            augment.crop_ratio,
            augment.flip,
            augment.vertical_flip,
            augment.color_jitter,
            augment.grayscale,
            augment.gaussian_blur,
            interpolation,
            augment.policy and build_policy(augment.policy, data.mean_colour, interpolation),
        )

    def build_mixing(self):
        """Build the mixup and CutMix of training."""
        augment, config = self.config.augment, self.config
        draws = MixDraws(
            augment.mixup,
            augment.cutmix,
            augment.cutmix_minmax,
            augment.mixup_probability,
            augment.mixup_switch_probability,
        )
        smoothing, seed = config.loss.label_smoothing, config.runtime.seed
        return Mixing(draws, augment.mixup_off_epoch, config.network.num_classes, smoothing, seed)

    def build_network(self):
        """Build images (N, 3, H, W) -> logits (N, classes)."""
        network = self.config.network
        return create_network(network.name, network.num_classes, dropout=network.dropout, **network.backbone_options())

    def attach_loss(self, network, train_data):
        """Build (images, labels or targets) -> scalar loss; balanced weights are those of the training data."""
        settings, data, num_classes = self.config.loss, self.config.data, self.config.network.num_classes
        weights = settings.class_weights
        if weights == "balanced":
            weights = balance_classes(train_data.sampler.entries, self.class_names())
        loss = ClassificationLoss(network, settings.label_smoothing, settings.name, weights)
        if settings.teacher is None:
            return loss
        teacher = load_teacher(settings.teacher, num_classes, data.class_names)
        return DistillationLoss(loss, teacher, settings.teacher_weight, settings.temperature)

    def build_evaluation_network(self, network):
        """Give the network as it is."""
        return network

    def evaluate(self, network, dataset, output_dir=None) -> dict:
        """Compute top-1 and top-5 accuracy, mean loss and speed over every image once.

        Args:
            network: from `build_evaluation_network`, or exported.
            dataset: from `build_dataset` for 'val'.
            output_dir: folder for `per_class.csv` and `predictions.csv`; None writes neither.
        """
        metrics, speed = self.measure(network, dataset)
        if output_dir:
            metrics.write_reports(Path(output_dir), dataset.records, dataset.class_names or self.class_names())
        return {**metrics.result(), "images_per_second": speed}

    def measure(self, network, dataset):
        """Evaluate as `evaluate` does: `ClassificationMetrics` with a record of every image, and images a second."""
        metrics = ClassificationMetrics(len(dataset.records))

        def update(outputs, labels, keys):
            metrics.update(keys[:, 1], outputs[0], labels)

        if self.config.evaluation.flip:
            network = MirrorAverage(network)
        speed = evaluate_batches(network, dataset, update)
        metrics.gather(dataset.ranks)
        return metrics, speed

    def export_signature(self) -> ExportSignature:
        """Describe the exported file."""
        size, classes = self.config.data.image_size, self.config.network.num_classes
        return ExportSignature("image", (3, size, size), ("logits",), 2, logit_classes=classes, has_fixed_size=False)

    def build_export_network(self, network):
        """Give the network as it is."""
        return network

    def describe(self, graph, image, network) -> dict:
        """Add what `build_export_network` computes to a file, see `describe_classifier`."""
        return describe_classifier(graph, image, network)

    def prediction_options(self) -> ClassificationOptions:
        """Give what a prediction depends on besides the network."""
        return ClassificationOptions.choose(self.class_names(), self.config.data, self.config.evaluation)

    def build_predictor(self, network):
        """Build what predicts images, see `ClassificationPredictor`."""
        return ClassificationPredictor(network, self.prediction_options(), self.build_transform(training=False))
