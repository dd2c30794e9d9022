"""Detection as a task: what the entry points and the training loop need to know about it."""

from functools import partial
from pathlib import Path

import numpy as np

from src.data.dataset import Dataset
from src.data.pipeline import build_batches
from src.data.sampler import evaluation_sampler, training_sampler
from src.detection.annotations import Annotations, read_annotations
from src.detection.dataset import LoadEvaluationImage, LoadTrainingImage, check_box_counts, choose_training_images
from src.detection.export_graph import describe_detector
from src.detection.loss import YOLOv3Loss
from src.detection.metrics import METRICS, DetectionMetrics
from src.detection.predictor import DetectionOptions, DetectionPredictor
from src.detection.settings import DetectionConfig
from src.detection.transforms import DetectionAugmentation
from src.detection.yolov3 import WithDecoding, YOLOv3
from src.errors import UserError
from src.export.export import ExportSignature
from src.inference.evaluation import evaluate_batches
from src.networks import create_network

OUTPUT_NAMES = ("boxes", "objectness", "class_scores")


class DetectionTask:
    """Object detection on data in COCO's layout; see `src.tasks.Task`."""

    metrics = dict.fromkeys(METRICS, 1)
    best_metric = "AP"

    def __init__(self, config: DetectionConfig):
        self.config = config

    def build_dataset(self, split, ranks) -> Dataset:
        """Read a split; its records are `Annotations`.

        The pipeline of 'train' gives (images, boxes, labels), see `dataset.LoadTrainingImage`, that of 'val' (images,
        keys): images float32 (B, 3, size, size), normalised, keys (epoch, index) int64 (B, 2).

        Raises:
            UserError: if the data are not there, wrong or too few, or their classes are not the network's.
        """
        config, data = self.config, self.config.data
        annotations = self._read_annotations(split)
        images = annotations.images
        if split == "train":
            check_box_counts(annotations, data.max_boxes)
            numbers, notes = choose_training_images(annotations, data.filter_empty_gt)
            numbers, batch_size = np.tile(numbers, data.repeat), config.train.batch_size
            sampler = training_sampler(numbers, annotations.path, config.train, config.runtime.seed, ranks)
            transform = DetectionAugmentation(data.image_size, data.mean_colour, config.augment)
            load = LoadTrainingImage(images, transform, data.max_boxes, config.runtime.seed, data.exif_rotation)
            columns = ["image", "boxes", "labels"]
        else:
            batch_size, columns, notes = config.evaluation.batch_size, ["image", "key"], ()
            sampler = evaluation_sampler(np.arange(len(images)), annotations.path, ranks)
            load = LoadEvaluationImage(images, data.image_size, data.mean_colour, data.exif_rotation)
        build = partial(build_batches, load=load, columns=columns, batch_size=batch_size, settings=data)
        return Dataset(sampler, batch_size, build, annotations, annotations.class_names, ranks, notes)

    def _read_annotations(self, split) -> Annotations:
        """Read the annotations of a split and compare their classes with the settings."""
        data, num_classes = self.config.data, self.config.network.num_classes
        annotations = read_annotations(data.path, split)
        names = annotations.class_names
        if len(names) != num_classes:
            raise UserError(
                f"{annotations.path}: has {len(names)} categories, the network {num_classes} classes; "
                f"--num_classes {len(names)} builds one that fits"
            )
        if data.class_names and names != data.class_names:
            ours, theirs = ", ".join(data.class_names), ", ".join(names)
            raise UserError(f"{annotations.path}: has the categories {theirs}; data.class_names says {ours}")
        return annotations

    def class_names(self):
        """Give the names of the classes in the order of their category ids."""
        numbered = tuple(f"class {label}" for label in range(self.config.network.num_classes))
        return self.config.data.class_names or numbered

    def build_network(self):
        """Build images (N, 3, H, W) -> raw predictions of each scale, see `YOLOv3`."""
        network = self.config.network
        backbone = create_network(network.name, features_only=True, **network.backbone_options())
        return YOLOv3(backbone, network.num_classes, network.channels)

    def attach_loss(self, network, train_data):
        """Build (images, boxes, labels) -> scalar loss."""
        config, loss = self.config, self.config.loss
        anchors, size = config.network.anchors, config.data.image_size
        thresholds = (loss.positive_iou, loss.ignore_iou)
        return YOLOv3Loss(network, config.network.num_classes, anchors, size, *thresholds, loss.summed_images)

    def build_evaluation_network(self, network):
        """Build images -> (boxes, objectness, class scores), see `WithDecoding`."""
        return WithDecoding(network, self.config.network.anchors, self.config.data.image_size)

    def evaluate(self, network, dataset, output_dir=None) -> dict:
        """Compute COCO's metrics and the speed over every image once.

        Args:
            network: from `build_evaluation_network`, or exported.
            dataset: from `build_dataset` for 'val'.
            output_dir: folder for `detections.json` and `per_class.csv`; None writes neither.
        """
        annotations = dataset.records
        metrics, predictor = DetectionMetrics(annotations), self.build_predictor(None)

        def update(outputs, keys):
            for index, *predictions in zip(keys[:, 1], *outputs):
                image = annotations.images[index]
                metrics.update(index, *predictor.select(predictions, image.width, image.height))

        speed = evaluate_batches(network, dataset, update)
        metrics.gather(dataset.ranks)
        result, rows = metrics.result()
        if output_dir:
            metrics.write_reports(Path(output_dir), rows)
        return {**result, "images_per_second": speed}

    def export_signature(self) -> ExportSignature:
        """Describe the exported file; its boxes are decoded for one size of the input."""
        size = self.config.data.image_size
        return ExportSignature("image", (3, size, size), OUTPUT_NAMES, 3, logit_classes=None, has_fixed_size=True)

    def build_export_network(self, network):
        """Build what `build_evaluation_network` does."""
        return self.build_evaluation_network(network)

    def describe(self, graph, image, network) -> dict:
        """Add what `build_export_network` computes to a file, see `describe_detector`."""
        return describe_detector(graph, image, network)

    def prediction_options(self) -> DetectionOptions:
        """Give what a prediction depends on besides the network."""
        return DetectionOptions.choose(self.class_names(), self.config.data, self.config.inference)

    def build_predictor(self, network):
        """Build what predicts images, see `DetectionPredictor`."""
        return DetectionPredictor(network, self.prediction_options())
