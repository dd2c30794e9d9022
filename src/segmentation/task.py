"""Segmentation as a task: what train.py, eval.py and export.py need to know about it."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.checkpoint import atomic_path
from src.drawing import choose_name
from src.ghostnetv2 import create_network
from src.images import load_image
from src.pipeline import build_batches, build_pipeline
from src.samples import evaluation_samples, training_samples
from src.segmentation.dataset import LoadSample, list_samples
from src.segmentation.deeplabv3 import DeepLabV3, FullSizeLogits
from src.segmentation.drawing import draw_overlay
from src.segmentation.inference import Segmenter
from src.segmentation.loss import SegmentationLoss
from src.segmentation.metrics import ConfusionMatrix
from src.segmentation.settings import SegmentationConfig
from src.segmentation.transforms import TrainTransform

COLUMNS = ["image", "label", "key"]
SMALLEST_SHARE = 1e-3  # of a picture, for a class to be told


class SegmentationTask:
    """Semantic segmentation on pictures with masks."""

    best_metric = "mean_iou"
    has_fixed_size = False

    def __init__(self, config: SegmentationConfig):
        self.config = config
        self.listed = {}  # image and mask paths of each split

    def build_dataset(self, split, runtime, first_epoch=0, first_step=0):
        """Pipeline of batches of (image, label) for 'train', of whole (image, label, key) for 'val'.

        Images and labels are float32 (B, 3, H, W), normalised, and uint8 (B, H, W); those of 'val' are as they are
        stored, uint8 (H, W, 3) and (H, W), and their sizes differ.

        Args:
            split: 'train' or 'val'.
            runtime: `Runtime`; each process takes its share.
            first_epoch, first_step: where training begins: number of the epoch, and of its batch on this
                process. With a `first_step` above 0, the pipeline is the rest of that one epoch.

        Raises:
            UserError: if the data are not there, incomplete or too few.
        """
        data, train, seed = self.config.data, self.config.train, self.config.runtime.seed
        workers, processes = data.workers, data.worker_processes
        if split not in self.listed:
            self.listed[split] = list_samples(data.path, split)
        pairs, classes = self.listed[split], self.config.network.num_classes
        indices = np.arange(len(pairs))
        if split == "train":
            samples = training_samples(indices, data.path, train, seed, runtime, first_epoch, first_step)
            load = LoadSample(pairs, classes, self.build_transform(), seed)
            batches = build_batches(
                samples, load, COLUMNS, train.batch_size, data.mean, data.std, workers=workers, processes=processes
            )
            return batches.project(["image", "label"])
        samples = evaluation_samples(indices, data.path, runtime)
        return build_pipeline(samples, LoadSample(pairs, classes), COLUMNS, workers=workers, processes=processes)

    def build_transform(self):
        """The transform of training."""
        data, augment = self.config.data, self.config.augment
        filling = [round(255 * value) for value in data.mean]
        return TrainTransform(
            data.crop_size,
            data.base_size,
            augment.ratio,
            augment.largest_share,
            augment.flip,
            augment.photometric,
            filling,
        )

    def class_names(self):
        """Names of the classes for people, in index order."""
        numbered = tuple(f"class {index + 1}" for index in range(self.config.network.num_classes))
        return self.config.data.class_names or numbered

    def build_network(self):
        """Images (N, 3, H, W) -> logits (N, classes, h, w), see `DeepLabV3`."""
        network = self.config.network
        return DeepLabV3(
            create_network(network.name, features_only=True, **network.backbone_options()),
            network.num_classes,
            network.aspp_channels,
            network.aspp_dilations,
            network.auxiliary_channels,
            network.dropout,
        )

    def attach_loss(self, network):
        """(images, labels) -> scalar loss."""
        return SegmentationLoss(network, self.config.loss.auxiliary_weight)

    def build_segmenter(self, network):
        """`Segmenter` for a network from `build_network`, or an exported one."""
        data, evaluation = self.config.data, self.config.evaluation
        return Segmenter(
            network,
            self.config.network.num_classes,
            data.mean,
            data.std,
            data.base_size,
            data.image_size,
            evaluation.size_multiple,
            evaluation.scales,
            evaluation.flip,
        )

    def evaluate(self, network, dataset, output_dir=None) -> dict:
        """Metrics over all pixels at the masks' own sizes, on all processes together.

        Args:
            network: from `build_network`, or exported.
            dataset: from `build_dataset` for 'val'.
            output_dir: folder for `per_class.csv`; None does not write it.
        """
        segment, matrix = self.build_segmenter(network), ConfusionMatrix(self.config.network.num_classes)
        samples = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
        progress = {"total": dataset.get_dataset_size(), "desc": "evaluate", "unit": "img", "leave": False}
        for image, labels, _ in tqdm(samples, **progress, disable=None):
            matrix.update(segment(image), labels)
        matrix.gather()
        if output_dir:
            matrix.write_report(Path(output_dir) / "per_class.csv", self.class_names())
        return matrix.result()

    def build_export_network(self, network):
        """The network to export, with logits at the size of its input; its input's shape; its output's name."""
        return FullSizeLogits(network), {"image": (3, *self.config.data.image_size)}, ("logits",)

    def predict(self, network, paths, output_dir=None):
        """Yield a line a picture, then one for each class in it with its share of the area.

        Args:
            network: from `build_network`, or exported.
            paths: image files.
            output_dir: folder for a colour overlay of each picture; None draws nothing.
        """
        segment, names, written = self.build_segmenter(network), self.class_names(), set()
        for path in paths:
            image = np.asarray(load_image(path))
            classes = segment(image)
            shares = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
            shown = [index for index in np.argsort(-shares, kind="stable") if shares[index] >= SMALLEST_SHARE]
            yield f"{path}"
            for index in shown:
                yield f"  {shares[index]:7.2%}  {names[index]}"
            if output_dir:
                drawing = choose_name(Path(output_dir), Path(path).stem, written)
                with atomic_path(drawing) as temporary:
                    draw_overlay(image, classes, shown, names).save(temporary)
                yield f"  drawn: {drawing}"
