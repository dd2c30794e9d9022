"""The order of samples: shuffled anew each epoch, shared between processes, from any sample on."""

import numpy as np
import pytest

from src.data.sampler import EpochSampler, evaluation_sampler, training_sampler
from src.errors import UserError
from src.ranks import Ranks
from src.settings import TrainSettings


def indices(sampler):
    """The samples of a pass."""
    return [int(key[1]) for key, _ in sampler]


def test_passes_begin_where_they_should_and_have_their_length():
    labels = np.arange(20, dtype=np.int32)
    options = {"seed": 1, "shuffle": True, "rank": 1, "ranks": 3}
    whole = EpochSampler(labels, **options)
    first, second = indices(whole), indices(whole.starting_at(1, 0, 1))
    assert first != second and len(whole) == len(first) == 7  # of 7, 7 and 6
    assert indices(whole) == first  # a pass changes nothing
    short = EpochSampler(labels, **options, count=6, skip=2, epochs=2)
    assert len(short) == 10
    assert indices(short) == first[2:6] + second[:6]  # `skip` is for the first epoch only
    epochs = [key[0] for key, label in EpochSampler(labels, **options, first_epoch=5) if label == labels[key[1]]]
    assert epochs == [5] * 7


def test_a_sampler_can_begin_again_elsewhere():
    def build():
        return training_sampler(np.arange(23), "test", TrainSettings(batch_size=4), 1, Ranks(1, 2))

    whole = indices(build().starting_at(0, 0, 3))
    assert len(whole) == len(build().starting_at(0, 0, 3)) == 24
    later = build().starting_at(1, 3, 2)
    assert len(later) == 13
    assert indices(later) == whole[11:]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_evaluation_reads_every_sample_once_in_order(count):
    parts = [evaluation_sampler(np.arange(11), "test", Ranks(rank, count)) for rank in range(count)]
    for _ in range(2):
        assert [indices(part) for part in parts] == [list(range(rank, 11, count)) for rank in range(count)]


@pytest.mark.parametrize(
    ("ranks", "accumulation_steps", "batches"), [(1, 1, 8), (2, 1, 4), (3, 1, 2), (1, 3, 6), (2, 2, 4), (3, 2, 2)]
)
def test_every_process_has_whole_updates(ranks, accumulation_steps, batches):
    train = TrainSettings(batch_size=3, accumulation_steps=accumulation_steps)
    parts = [training_sampler(np.arange(25), "test", train, 0, Ranks(rank, ranks)) for rank in range(ranks)]
    for _ in range(2):
        found = [indices(part) for part in parts]
        assert [len(part) for part in found] == [3 * batches] * ranks
        assert len({index for part in found for index in part}) == 3 * batches * ranks


def test_too_few_samples():
    train = TrainSettings(batch_size=3, accumulation_steps=5)
    message = (
        "^here: has 25 images, too few for one update of 30: on each of 2 devices "
        "train.accumulation_steps 5 x train.batch_size 3$"
    )
    with pytest.raises(UserError, match=message):
        training_sampler(np.arange(25), "here", train, 0, Ranks(1, 2))
    with pytest.raises(UserError, match="^here: has 2 images, too few for one on each of 3 devices$"):
        evaluation_sampler(np.arange(2), "here", Ranks(0, 3))
