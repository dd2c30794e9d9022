"""Detection as a task: what train.py, eval.py and export.py need to know about it."""

import dataclasses
import time
from pathlib import Path

import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from src.checkpoint import atomic_path
from src.compile_cache import run_cached
from src.detection.annotations import read_annotations
from src.detection.dataset import LoadEvaluation, LoadTraining, check_box_counts
from src.detection.drawing import draw_detections
from src.detection.loss import YOLOv3Loss
from src.detection.metrics import DetectionMetrics
from src.detection.postprocess import select_detections
from src.detection.settings import DetectionConfig
from src.detection.transforms import TrainTransform, clip_boxes, whole_view
from src.detection.yolov3 import WithDecoding, YOLOv3
from src.drawing import choose_name, palette
from src.errors import UserError
from src.ghostnetv2 import create_network
from src.images import load_image, normalise
from src.inference import ExportedNetwork
from src.pipeline import build_batches
from src.samples import evaluation_samples, training_samples

OUTPUT_NAMES = ("boxes", "objectness", "class_scores")


class DetectionTask:
    """Object detection on data in COCO's layout.

    `config` is completed by what the data tell: the class names.
    """

    best_metric = "AP"
    has_fixed_size = True  # boxes are decoded for one size of the input

    def __init__(self, config: DetectionConfig):
        self.config = config
        self.annotations = {}  # of each split, once read
        self.decoded = None  # the last network that was evaluated, with decoding

    def build_dataset(self, split, runtime, first_epoch=0, first_step=0):
        """Pipeline of (image, boxes, labels) for 'train', (image, key) for 'val', see `dataset`.

        Args:
            split: 'train' or 'val'.
            runtime: `Runtime`; each process takes its share.
            first_epoch, first_step: where training begins: number of the epoch, and of its batch on this
                process. With a `first_step` above 0, the pipeline is the rest of that one epoch.

        Raises:
            UserError: if the data are not there, wrong or too few, or their classes are not the network's.
        """
        if split not in self.annotations:
            self.annotations[split] = self.read_annotations(split)
        annotations = self.annotations[split]
        if split == "train":
            return self._build_training(annotations, runtime, first_epoch, first_step)
        samples = evaluation_samples(np.arange(len(annotations.pictures)), annotations.path, runtime)
        load = LoadEvaluation(annotations.pictures, self.config.data.image_size, self.padding_colour)
        return self._build_batches(samples, load, ["image", "key"], self.config.evaluation.batch_size)

    def _build_training(self, annotations, runtime, first_epoch, first_step):
        config, data, seed = self.config, self.config.data, self.config.runtime.seed
        check_box_counts(annotations, data.max_boxes)
        numbers = np.tile(np.arange(len(annotations.pictures)), data.repeat)
        samples = training_samples(numbers, annotations.path, config.train, seed, runtime, first_epoch, first_step)
        transform = TrainTransform(data.image_size, self.padding_colour, **vars(config.augment))
        load = LoadTraining(annotations.pictures, transform, data.max_boxes, seed)
        return self._build_batches(samples, load, ["image", "boxes", "labels"], config.train.batch_size)

    def _build_batches(self, samples, load, columns, batch_size):
        data = self.config.data
        return build_batches(
            samples,
            load,
            columns,
            batch_size,
            data.mean,
            data.std,
            workers=data.workers,
            processes=data.worker_processes,
        )

    @property
    def padding_colour(self):
        """8-bit colour that normalisation takes to about 0."""
        return tuple(round(255 * value) for value in self.config.data.mean)

    def read_annotations(self, split):
        """`Annotations` of a split; takes the class names over into `config`."""
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
        self.config = dataclasses.replace(self.config, data=dataclasses.replace(data, class_names=names))
        return annotations

    def class_names(self):
        """Names of the classes in the order of their category ids."""
        numbered = tuple(f"class {label}" for label in range(self.config.network.num_classes))
        return self.config.data.class_names or numbered

    def build_network(self):
        """Images (N, 3, H, W) -> raw predictions of each scale, see `YOLOv3`."""
        network = self.config.network
        backbone = create_network(network.name, features_only=True, **network.backbone_options())
        return YOLOv3(backbone, network.num_classes, network.channels)

    def attach_loss(self, network):
        """(images, boxes, labels) -> scalar loss."""
        config = self.config
        arguments = (config.network.num_classes, config.network.anchors, config.data.image_size)
        return YOLOv3Loss(network, *arguments, **vars(config.loss))

    def add_decoding(self, network):
        """Images -> (boxes, objectness, class scores), in evaluation; an exported file gives these by itself."""
        if isinstance(network, ExportedNetwork):
            return network
        if self.decoded is None or self.decoded.network is not network:  # each new one is compiled
            self.decoded = WithDecoding(network, self.config.network.anchors, self.config.data.image_size)
        return self.decoded.set_train(False)

    def evaluate(self, network, dataset, output_dir=None) -> dict:
        """COCO's metrics over every image once, on all processes together.

        Args:
            network: from `build_network`.
            dataset: from `build_dataset` for 'val'. A short last batch is filled up, so one graph serves all.
            output_dir: folder for `detections.json` and `per_class.csv`; None writes neither.
        """
        decoded, annotations = self.add_decoding(network), self.annotations["val"]
        metrics, batch_size, start = DetectionMetrics(annotations), None, 0.0
        batches = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
        progress = {"total": dataset.get_dataset_size(), "desc": "evaluate", "unit": "batch", "leave": False}
        for images, keys in tqdm(batches, **progress, disable=None):
            batch_size = batch_size or len(images)
            filling = np.zeros((batch_size - len(images), *images.shape[1:]), images.dtype)
            batch = Tensor(np.concatenate((images, filling)))
            outputs = [output.asnumpy() for output in run_cached(decoded, batch)]
            for index, *predictions in zip(keys[:, 1], *outputs):
                picture = annotations.pictures[index]
                metrics.update(index, *self.select(predictions, picture.width, picture.height))
            start = start or time.monotonic()  # the first batch compiles the graph
        own, seconds = metrics.seen.sum() - batch_size, time.monotonic() - start
        metrics.gather()
        result, rows = metrics.result()
        if output_dir:
            metrics.write_reports(Path(output_dir), rows)
        return {**result, "images_per_second": float(own / seconds) if own > 0 else None}

    def select(self, predictions, width, height):
        """Detections of one picture: boxes (D, 4), xyxy in its pixels and inside it, scores (D,), labels (D,).

        Args:
            predictions: boxes (A, 4), objectness (A,) and class scores (A, classes), as `WithDecoding` gives them.
            width, height: of the picture.
        """
        limits, num_classes = self.config.inference, self.config.network.num_classes
        if predictions[-1].shape[-1] != num_classes:
            given = predictions[-1].shape[-1]
            raise UserError(f"the network gives {given} classes, the settings say {num_classes}; --num_classes {given}")
        boxes, scores, labels = select_detections(
            *predictions,
            objectness_threshold=limits.objectness,
            score_threshold=limits.score,
            iou_threshold=limits.iou,
            max_candidates=limits.candidates,
            max_detections=limits.detections,
        )
        boxes = whole_view(width, height, self.config.data.image_size).to_picture(boxes)
        return clip_boxes(boxes, (0, 0, width, height)), scores, labels

    def build_export_network(self, network):
        """The network to export, the shapes of its inputs without the batch, and its input and output names."""
        size = self.config.data.image_size
        return self.add_decoding(network), {"image": (3, size, size)}, OUTPUT_NAMES

    def predict(self, network, paths, output_dir=None):
        """Yield a line a picture, then one for each detection: score, class, and corners in the picture's pixels.

        Args:
            network: from `build_network`.
            paths: image files.
            output_dir: folder for the pictures with the boxes drawn on them, as PNG; None draws none.
        """
        names, written = self.class_names(), set()
        for path in paths:
            image = load_image(path)
            boxes, scores, labels = self.detect(network, image)
            shown = scores >= self.config.inference.drawn_score
            boxes, scores, labels = boxes[shown], scores[shown], labels[shown]
            yield f"{path}: {len(scores)} detected"
            for box, score, label in zip(boxes, scores, labels):
                yield f"  {score:7.2%}  {names[label]}  {' '.join(f'{side:.1f}' for side in box)}"
            if output_dir:
                texts = [f"{names[label]} {score:.0%}" for label, score in zip(labels, scores)]
                draw_detections(image, boxes, texts, palette(len(names))[labels])
                drawing = choose_name(Path(output_dir), Path(path).stem, written)
                with atomic_path(drawing) as temporary:
                    image.save(temporary)
                yield f"  drawn: {drawing}"

    def detect(self, network, image):
        """Detections of a PIL image, see `select`."""
        data = self.config.data
        pixels = whole_view(*image.size, data.image_size).read(image, self.padding_colour)
        batch = normalise(pixels[None], data.mean, data.std)
        predictions = [output.asnumpy()[0] for output in run_cached(self.add_decoding(network), Tensor(batch))]
        return self.select(predictions, *image.size)
