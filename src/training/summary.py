"""A run as TensorBoard shows it: event files in `summary/` of the run's folder, written by tensorboardX.

The axis of all values is the number of batches since the start of the run. MindSpore's own `SummaryRecord` writes files
that only MindInsight reads.
"""

import dataclasses
import os
import time

import numpy as np

from src.drawing import to_colours
from src.errors import UserError
from src.files import make_folder, unwritable
from src.training.finetuning import RUNNING_STATISTICS

GRID_COLUMNS, GRID_IMAGES = 8, 32  # images in a row of the grid, and in the whole of it at most
BINS = 64  # of a histogram


def check_summary(wanted: bool) -> None:
    """Raise `UserError` if event files are wanted and tensorboardX is not installed."""
    if not wanted:
        return
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        raise UserError("train.summary: needs tensorboardX, which pip install tensorboardX installs") from None


class Summary:
    """Writer of a run's event files; it writes nothing without `train.summary`, and on other than the main process.

    What it has written is on the disk before a checkpoint of the same batch is. A run that goes on hides what was
    written behind its checkpoint, so no step has a value twice.

    Args:
        run: `Run`, where it begins or goes on.
        folder: `RunFolder`.
    """

    def __init__(self, run, folder):
        self.run, self.events = run, None
        if not (run.config.train.summary and run.ranks.is_main):
            return
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self.path = folder.path / "summary"
        make_folder(self.path)
        batches = run.history.batches_done
        # the writer's names have seconds, in which a run may stop and go on
        self.events = EventsWriter(str(self.path / "events"), f".{time.time_ns()}.{os.getpid()}")
        hidden_from = batches + 1 if batches else 0
        self._write(hidden_from, session_log=SessionLog(status=SessionLog.START))
        if batches == 0:
            self._write_images()

    def write_scalars(self, group: str, values: dict) -> None:
        """Write {name: number} below the name of a group."""
        if self.events is None:
            return
        self._write(self.run.history.batches_done, summary=_scalars(group, values))

    def write_epoch(self, row: dict, is_evaluated: bool) -> None:
        """Write all numbers of an epoch's row and, where its weights were evaluated, histograms of these weights."""
        if self.events is None:
            return
        content = _scalars("epoch", row)
        if is_evaluated:
            content.MergeFrom(_histograms(self.run.weights))
        self._write(self.run.history.batches_done, summary=content)

    def _write_images(self):
        """Write the images of the run's first batch on this process, as the network sees them."""
        from tensorboardX.summary import image

        # a pipeline of its own, as the run's may send to the device what no one else can see
        data, settings = self.run.train_data, self.run.config.data
        data = dataclasses.replace(data, sampler=dataclasses.replace(data.sampler, count=data.batch_size))
        images = next(data.pipeline().create_tuple_iterator(num_epochs=1, output_numpy=True))[0]
        grid = tile_images(to_colours(images[:GRID_IMAGES], settings.mean, settings.std), GRID_COLUMNS)
        self._write(0, summary=image("train_images", grid, dataformats="HWC"))

    def _write(self, step, **content):
        from tensorboardX.proto.event_pb2 import Event

        try:
            self.events.write_event(Event(wall_time=time.time(), step=step, **content))
            self.events.flush()
        except OSError as error:
            raise unwritable(self.path, error) from None


def _scalars(group, values):
    from tensorboardX.proto import summary_pb2

    return summary_pb2.Summary(
        value=[summary_pb2.Summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in values.items()]
    )


def _histograms(network):
    from tensorboardX import summary
    from tensorboardX.proto import summary_pb2

    content = summary_pb2.Summary()
    for parameter in network.get_parameters():
        values = parameter.asnumpy().astype(np.float32)
        if not parameter.name.endswith(RUNNING_STATISTICS) and np.isfinite(values).all():
            content.MergeFrom(summary.histogram(f"weights/{parameter.name}", values, BINS))
    return content


def tile_images(images, columns: int):
    """Lay images uint8 (N, H, W, 3) side by side, `columns` in a row at most: (H * rows, W * columns, 3)."""
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, height, width, channels), np.uint8)
    grid[:count] = images
    grid = grid.reshape(rows, columns, height, width, channels).swapaxes(1, 2)  # (rows, H, columns, W, 3)
    return grid.reshape(rows * height, columns * width, channels)
