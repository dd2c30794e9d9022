"""How batches reach the training step: each is handed over by the host, or MindSpore sends them to the device ahead."""

from contextlib import contextmanager

import mindspore
import numpy as np
from mindspore import Tensor


def is_sunk(sink) -> bool:
    """Whether batches are sent ahead: `sink` is the setting, None for what suits the device; CPU has no such queue."""
    return sink is not False and mindspore.get_context("device_target") != "CPU"


@contextmanager
def feed_batches(run):
    """Give the function that trains on the next batch: () -> its loss, still on the device.

    It begins where the run's history stands, and ends with the run's last epoch. Both ways give the same batches in the
    same order.

    Args:
        run: `Run`.
    """
    history = run.history
    if history.epoch >= run.epochs:  # whole already
        yield None
        return
    pipeline = run.train_data.pipeline(history.epoch, history.batch, run.epochs - history.epoch)
    if not is_sunk(run.config.train.sink):
        batches = pipeline.create_tuple_iterator(num_epochs=1)
        yield lambda: run.train_step(*next(batches))
        return
    columns = zip(pipeline.output_shapes(), pipeline.output_types())
    signature = tuple(Tensor(shape=shape, dtype=getattr(mindspore, np.dtype(kind).name)) for shape, kind in columns)
    train_on_next = mindspore.data_sink(run.train_step, pipeline, input_signature=signature)
    try:
        yield train_on_next
    finally:  # the thread that sends would wait for ever for a place in the queue
        pipeline.__transfer_dataset__.stop_send()
        pipeline.__transfer_dataset__.release()
