"""Segmentation as a task: what the entry points and the training loop need to know about it."""

from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.data.dataset import Dataset
from src.data.images import describe_others
from src.data.pipeline import build_batches, build_pipeline
from src.data.sampler import evaluation_sampler, training_sampler
from src.export.export import ExportSignature
from src.layers.arrays import ArrayNetwork
from src.networks import create_network
from src.segmentation.dataset import LoadPair, pair_files
from src.segmentation.deeplabv3 import DeepLabV3, FullSizeLogits
from src.segmentation.export_graph import describe_segmenter
from src.segmentation.loss import SegmentationLoss
from src.segmentation.metrics import ConfusionMatrix
from src.segmentation.predictor import SegmentationOptions, SegmentationPredictor
from src.segmentation.settings import SegmentationConfig
from src.segmentation.transforms import SegmentationAugmentation

COLUMNS = ["image", "label", "key"]


class SegmentationTask:
    """Semantic segmentation on images with masks; see `src.tasks.Task`."""

    metrics = {"mean_iou": 1, "pixel_accuracy": 1, "mean_accuracy": 1}
    best_metric = "mean_iou"

    def __init__(self, config: SegmentationConfig):
        self.config = config

    def build_dataset(self, split, ranks) -> Dataset:
        """List a split; its records are pairs of an image's and its mask's path.

        The pipeline of 'train' gives batches of (images, labels), float32 (B, 3, H, W), normalised, and uint8 (B, H,
        W); that of 'val' single (image, label, key) as they are stored, uint8 (H, W, 3) and (H, W) of any size.

        Raises:
            UserError: if the data are not there, incomplete or too few.
        """
        data, train, seed = self.config.data, self.config.train, self.config.runtime.seed
        pairs, others = pair_files(data.path, split)
        indices, classes = np.arange(len(pairs)), self.config.network.num_classes
        if split == "train":
            batch_size = train.batch_size
            sampler = training_sampler(indices, data.path, train, seed, ranks)
            augment = SegmentationAugmentation(data.crop_size, data.base_size, data.mean_colour, self.config.augment)
            load = LoadPair(pairs, classes, augment, seed, data.exif_rotation)
            build = partial(self._build_training, load)
        else:
            batch_size = self.config.evaluation.batch_size
            sampler = evaluation_sampler(indices, data.path, ranks)
            load = LoadPair(pairs, classes, None, seed, data.exif_rotation)
            build = partial(build_pipeline, load=load, columns=COLUMNS, settings=data)
        return Dataset(sampler, batch_size, build, pairs, (), ranks, describe_others(data.path, others))

    def _build_training(self, load, sampler):
        batches = build_batches(sampler, load, COLUMNS, self.config.train.batch_size, self.config.data)
        return batches.project(["image", "label"])

    def class_names(self):
        """Give the names of the classes for people, in index order."""
        numbered = tuple(f"class {index + 1}" for index in range(self.config.network.num_classes))
        return self.config.data.class_names or numbered

    def build_network(self):
        """Build images (N, 3, H, W) -> logits (N, classes, h, w), see `DeepLabV3`."""
        network = self.config.network
        return DeepLabV3(
            create_network(network.name, features_only=True, **network.backbone_options()),
            network.num_classes,
            network.aspp_channels,
            network.aspp_dilations,
            network.auxiliary_channels,
            network.dropout,
        )

    def attach_loss(self, network, train_data):
        """Build (images, labels) -> scalar loss."""
        loss = self.config.loss
        return SegmentationLoss(network, loss.auxiliary_weight, loss.average)

    def build_evaluation_network(self, network):
        """Give the network as it is: its small logits are resized on the host, see `segmenter`."""
        return network

    def evaluate(self, network, dataset, output_dir=None) -> dict:
        """Compute mean IoU and accuracies over all pixels at the masks' own sizes.

        Args:
            network: from `build_evaluation_network`, or exported.
            dataset: from `build_dataset` for 'val'.
            output_dir: folder for `per_class.csv`; None does not write it.
        """
        segment = self.build_predictor(ArrayNetwork(network)).segment
        matrix = ConfusionMatrix(self.config.network.num_classes)
        samples = dataset.pipeline().create_tuple_iterator(num_epochs=1, output_numpy=True)
        progress = {"total": dataset.batches, "desc": "evaluate", "unit": "img", "leave": False}
        for image, labels, _ in tqdm(samples, **progress, disable=None):
            matrix.update(segment(image), labels)
        matrix.gather(dataset.ranks)
        if output_dir:
            matrix.write_report(Path(output_dir) / "per_class.csv", self.class_names())
        return matrix.result()

    def export_signature(self) -> ExportSignature:
        """Describe the exported file."""
        shape, classes = (3, *self.config.data.image_size), self.config.network.num_classes
        return ExportSignature("image", shape, ("logits",), 4, logit_classes=classes, has_fixed_size=False)

    def build_export_network(self, network):
        """Build images -> logits (N, classes, H, W) at the size of the input."""
        return FullSizeLogits(network)

    def describe(self, graph, image, network) -> dict:
        """Add what `build_export_network` computes to a file, see `describe_segmenter`."""
        return describe_segmenter(graph, image, network)

    def prediction_options(self) -> SegmentationOptions:
        """Give what a prediction depends on besides the network."""
        return SegmentationOptions.choose(self.class_names(), self.config.data, self.config.evaluation)

    def build_predictor(self, network):
        """Build what predicts images, see `SegmentationPredictor`."""
        return SegmentationPredictor(network, self.prediction_options())
