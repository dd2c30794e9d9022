"""The loop over the batches of an evaluation."""

import time

import numpy as np
from tqdm import tqdm

from src.layers.arrays import ArrayNetwork


def evaluate_batches(network, dataset, update):
    """Call a network on every image of this process, with a progress bar.

    A short last batch is filled up, so that one graph serves all.

    Args:
        network: nn.Cell or anything else that is called like one; images (B, 3, H, W) -> a tensor, or a tuple of them.
        dataset: `Dataset` of images and other columns, in batches.
        update: is called as (outputs, *other columns) for each batch, all of them arrays of its images alone.

    Returns:
        Images a second, the first batch not counted, which compiles the graph; None if there is no other.
    """
    predict = ArrayNetwork(network)
    size, count, start = None, 0, None
    batches = dataset.pipeline().create_tuple_iterator(num_epochs=1, output_numpy=True)
    bar = tqdm(batches, total=dataset.batches, desc="evaluate", unit="batch", leave=False, disable=None)
    for images, *columns in bar:
        size = size or len(images)
        filling = np.zeros((size - len(images), *images.shape[1:]), images.dtype)
        update([output[: len(images)] for output in predict(np.concatenate((images, filling)))], *columns)
        if start is None:
            start = time.monotonic()
        else:
            count += len(images)
    return count / (time.monotonic() - start) if count else None
