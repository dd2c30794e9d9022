"""The order of samples: shuffled anew each epoch, repeated, shared between processes, from any sample on."""

import numpy as np
import pytest
from helpers import reference

from src.data.sampler import EpochSampler, epoch_of, evaluation_sampler, training_sampler
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


def repeated(copies, rank=0, ranks=1, entries=25, **changes):
    """The sampler of a training with repeated augmentation, in batches of 3."""
    train = TrainSettings(batch_size=3, repeated_augmentation=copies, **changes)
    return training_sampler(np.arange(entries), "test", train, 7, Ranks(rank, ranks))


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("copies", [1, 2, 3, 4, 30])
def test_repeated_samples_stand_where_timms_do(copies, ranks):
    """timm's sampler gives places in the order; its length is rounded in another way, so the shorter one counts."""
    sampler = reference("timm.data.distributed_sampler").RepeatAugSampler
    for epoch in range(2):
        order = np.arange(25)
        np.random.default_rng((7, epoch)).shuffle(order)
        for rank in range(ranks):
            found = repeated(copies, rank, ranks).starting_at(epoch, 0, 1)
            assert len(found) == len(repeated(1, rank, ranks))  # an epoch is as long as without copies
            places = list(sampler(range(25), ranks, rank, False, copies, selected_round=0))[: len(found)]
            assert indices(found) == order[places].tolist()
            assert [int(entry) for _, entry in found] == indices(found)


@pytest.mark.parametrize(("ranks", "samples"), [(1, 24), (2, 24), (3, 18)])
def test_every_copy_has_a_key_of_its_own(ranks, samples):
    """Over two epochs; with as many processes as copies, each of them has one."""
    parts = [[tuple(key) for key, _ in repeated(3, rank, ranks).starting_at(4, 0, 2)] for rank in range(ranks)]
    keys = [key for part in parts for key in part]
    assert len(set(keys)) == len(keys) == 2 * samples
    for epoch in (4, 5):
        found = [index for number, index in keys if epoch_of(number) == epoch]
        assert len(found) == samples and len(set(found)) == samples // 3
        assert {number for number, _ in keys if epoch_of(number) == epoch} == {epoch, epoch + 2**20, epoch + 2**21}
    if ranks == 3:
        assert all(len({epoch_of(n) * 100 + index for n, index in part}) == len(part) for part in parts)


@pytest.mark.parametrize("ranks", [1, 2])
def test_repeated_samples_go_on_from_within_an_epoch(ranks):
    whole = [tuple(key) for key, _ in repeated(2, 0, ranks).starting_at(0, 0, 3)]
    length = len(repeated(2, 0, ranks))
    for skip in (3, 6):
        later = repeated(2, 0, ranks).starting_at(1, skip, 2)
        assert [tuple(key) for key, _ in later] == whole[length + skip :] and len(later) == 2 * length - skip


def test_without_repetition_keys_are_epochs_and_indices():
    order = np.arange(25)
    np.random.default_rng((7, 3)).shuffle(order)
    for rank in range(2):
        keys = [tuple(key) for key, _ in repeated(1, rank, 2).starting_at(3, 3, 1)]
        assert keys == [(3, index) for index in order[rank::2][3:12]]
    assert all(epoch_of(number) == number for number in (0, 1, 450, 200_000))


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
