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


def read(dataset, epochs=1, **start):
    batches = dataset.pipeline(**start, epochs=epochs).create_tuple_iterator(num_epochs=1, output_numpy=True)
    return [(image.tobytes(), entry.tolist()) for image, entry in batches]


@pytest.mark.parametrize(("dataset", "batches"), [(shuffled(), 5), (in_order(), 6)], ids=["train", "val"])
def test_a_pipeline_from_any_batch_gives_the_rest_of_the_epoch(dataset, batches):
    assert dataset.batches == dataset.pipeline().get_dataset_size() == batches
    whole = [read(dataset, first_epoch=epoch) for epoch in range(3)]
    assert [len(epoch) for epoch in whole] == [batches] * 3
    assert len({image for epoch in whole for image, _ in epoch}) == 3 * batches
    for epoch, batch in ((0, 4), (1, 2), (2, batches - 1)):
        start = {"first_epoch": epoch, "first_batch": batch}
        assert dataset.pipeline(**start).get_dataset_size() == batches - batch
        assert read(dataset, **start) == whole[epoch][batch:]


def test_a_pass_over_several_epochs_from_within_the_first():
    dataset = shuffled()
    expected = [*read(dataset, first_epoch=1, first_batch=2), *read(dataset, first_epoch=2)]
    assert read(dataset, 2, first_epoch=1, first_batch=2) == expected
    pipeline = dataset.pipeline(first_epoch=1, first_batch=2, epochs=2)
    assert pipeline.get_dataset_size() == 8 and pipeline.output_shapes() == [[BATCH, 3, 2, 2], [BATCH]]
    passes = [[entry.tolist() for _, entry in pipeline.create_tuple_iterator(num_epochs=1)] for _ in range(2)]
    assert passes == 2 * [[entry for _, entry in expected]]  # whatever has looked at it before


def test_no_batch_behind_the_last():
    for dataset, batch in ((shuffled(), 5), (in_order(), 6), (shuffled(), -1)):
        with pytest.raises(UserError, match=f"^an epoch has {dataset.batches} batches, none behind {batch}$"):
            dataset.pipeline(first_batch=batch)
