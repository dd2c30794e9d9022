"""A split as a value: its pipelines begin anywhere, and as often as one likes."""

import numpy as np
import pytest

from src.data.dataset import Dataset
from src.data.pipeline import build_batches
from src.data.sampler import evaluation_sampler, training_sampler
from src.data.settings import PipelineSettings
from src.errors import UserError
from src.ranks import Ranks
from src.settings import TrainSettings

BATCH = 3


def load(key, entry):
    """An image whose pixels tell epoch and number."""
    return np.full((2, 2, 3), 50 * key[0] + key[1], np.uint8), entry


def build(sampler):
    return build_batches(sampler, load, ["image", "entry"], BATCH, PipelineSettings(workers=2))


def shuffled():
    sampler = training_sampler(np.arange(17), "test", TrainSettings(batch_size=BATCH), 4, Ranks())
    return Dataset(sampler, BATCH, build, range(17), (), Ranks())


def in_order():
    """The last of six batches is short."""
    return Dataset(evaluation_sampler(np.arange(17), "test", Ranks()), BATCH, build, range(17), (), Ranks())


def read(pipeline, epochs):
    iterator = pipeline.create_tuple_iterator(num_epochs=epochs, output_numpy=True)
    return [[(image.tobytes(), entry.tolist()) for image, entry in iterator] for _ in range(epochs)]


@pytest.mark.parametrize(("dataset", "batches"), [(shuffled(), 5), (in_order(), 6)], ids=["train", "val"])
def test_a_pipeline_from_any_batch_gives_the_rest_of_the_epoch(dataset, batches):
    assert dataset.batches == dataset.pipeline().get_dataset_size() == batches
    whole = read(dataset.pipeline(), 3)
    assert [len(epoch) for epoch in whole] == [batches] * 3
    assert len({image for epoch in whole for image, _ in epoch}) == 3 * batches
    for epoch, batch in ((0, 4), (1, 2), (2, batches - 1)):
        pipeline = dataset.pipeline(first_epoch=epoch, first_batch=batch)
        assert pipeline.get_dataset_size() == batches - batch
        assert read(pipeline, 1) == [whole[epoch][batch:]]
    assert read(dataset.pipeline(first_epoch=1), 2) == whole[1:]


def test_no_batch_behind_the_last():
    for dataset, batch in ((shuffled(), 5), (in_order(), 6), (shuffled(), -1)):
        with pytest.raises(UserError, match=f"^an epoch has {dataset.batches} batches, none behind {batch}$"):
            dataset.pipeline(first_batch=batch)
