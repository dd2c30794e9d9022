"""The tasks of this project: the only place that knows them all."""

from typing import Protocol

from src.classification.settings import ClassificationConfig
from src.classification.task import ClassificationTask
from src.detection.settings import DetectionConfig
from src.detection.task import DetectionTask
from src.segmentation.settings import SegmentationConfig
from src.segmentation.task import SegmentationTask

TASKS = {
    "classification": (ClassificationConfig, ClassificationTask),
    "detection": (DetectionConfig, DetectionTask),
    "segmentation": (SegmentationConfig, SegmentationTask),
}
SCHEMAS = {name: schema for name, (schema, _) in TASKS.items()}


class Task(Protocol):
    """What the entry points and the training loop ask of a task.

    It is a thin object of its settings, holds nothing between calls, and owns no loop, optimizer or checkpoint.

    Attributes:
        metrics: keys of `evaluate`'s result that can tell which weights are the best; 1 where the highest value is the
            best, -1 where the lowest one is.
        best_metric: the one that does unless settings say otherwise.
    """

    metrics: dict
    best_metric: str

    def build_dataset(self, split, ranks):
        """List the files of a split.

        Args:
            split: 'train' or 'val'.
            ranks: `Ranks`; the pipeline of each process gives its share.

        Returns:
            `Dataset`. For 'train' the pipeline gives what the cell of `attach_loss` takes, in whole updates of the same
            number on every process; for 'val' each image once.

        Raises:
            UserError: if the data are not there, wrong or too few, or do not fit the settings.
        """

    def build_network(self):
        """Build the network to train: nn.Cell, images float32 (N, 3, H, W) -> raw outputs.

        Raises:
            UserError: if its options do not fit each other.
        """

    def attach_loss(self, network, train_data):
        """Build the nn.Cell from the columns of 'train' to a scalar loss, float32, around a network.

        Args:
            network: from `build_network`.
            train_data: from `build_dataset` for 'train'.

        Raises:
            UserError: if the data or the settings do not fit the loss.
        """

    def build_evaluation_network(self, network):
        """Build the nn.Cell that `evaluate` and `predict` call, of the weights of a network, in evaluation mode."""

    def evaluate(self, network, dataset, output_dir=None) -> dict:
        """Compute the metrics of a network.

        Args:
            network: from `build_evaluation_network`, or an exported one.
            dataset: from `build_dataset` for 'val'.
            output_dir: folder for details, such as predictions; None writes none.

        Returns:
            {metric: number} over the whole dataset, the same on all processes.

        Raises:
            UserError: if the network's classes are not those of the settings.
        """

    def export_signature(self):
        """Describe what an exported file takes and gives: `ExportSignature`."""

    def build_export_network(self, network):
        """Build the nn.Cell to export, of the weights of a network: one input, one output or a tuple of them."""

    def describe(self, graph, image, network) -> dict:
        """Add what the cell of `build_export_network` computes to a file that is written operator by operator.

        Args:
            graph: `src.export.graph.Graph`.
            image: the file's input, a map.
            network: that cell, from `fold_batch_norm`.

        Returns:
            {name of an output: map or rows}, in the order of `export_signature`.
        """

    def class_names(self):
        """Give the names of the classes for people, a tuple in index order."""

    def prediction_options(self):
        """Give what a prediction depends on besides the network: a dataclass of plain values."""

    def build_predictor(self, network):
        """Build what `src.inference.prediction.predict_images` takes, of a network that is called with arrays."""


def create_task(config) -> Task:
    """Create the task that `config.task` names."""
    return TASKS[config.task][1](config)
