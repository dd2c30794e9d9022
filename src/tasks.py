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
    """What the entry points ask of a task. It owns no loop, optimizer or checkpoint."""

    best_metric: str  # key of `evaluate`'s result; the checkpoint with its highest value is kept
    has_fixed_size: bool  # whether the network to export takes pictures of one size only
    config: object  # the settings, completed by what the data tell

    def build_dataset(self, split, runtime, first_epoch=0, first_step=0):
        """mindspore.dataset pipeline of 'train' or 'val'.

        Training begins with the epoch `first_epoch`. Where `first_step` is above 0, the pipeline holds that epoch
        alone, without its first `first_step` batches. Every process has the same number of training batches, a
        multiple of `train.accumulation_steps`.
        """

    def build_network(self):
        """nn.Cell with raw outputs."""

    def attach_loss(self, network):
        """nn.Cell: the dataset's columns -> scalar loss."""

    def evaluate(self, network, dataset, output_dir=None) -> dict:
        """{metric: number} over the whole dataset, on all processes together; details into `output_dir`."""

    def build_export_network(self, network):
        """(nn.Cell, {input name: shape without the batch}, output names)."""

    def predict(self, network, paths, output_dir=None):
        """Yield lines of text about pictures; write drawings, if any, into `output_dir`."""


def create_task(config) -> Task:
    """The task that `config.task` names."""
    return TASKS[config.task][1](config)
