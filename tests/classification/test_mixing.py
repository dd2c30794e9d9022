"""Mixup and CutMix against timm's, with its draws; how often and how much; and what they depend on."""

import math

import numpy as np
import pytest
from helpers import PROJECT, are_equal, normal, read_epochs, reference, write_images

from src.classification.mixing import MixDraws, Mixing, mix_images, mix_targets
from src.config import load_config
from src.ranks import Ranks
from src.tasks import SCHEMAS, create_task

CONFIG = PROJECT / "configs" / "classification" / "digits.yaml"
DEVIATIONS = 4.5  # allowed, in standard errors; all draws are seeded
CLASSES = 7
KINDS = {
    "mixup": MixDraws(0.8, 0.0, None, 1.0, 0.5),
    "cutmix": MixDraws(0.0, 1.0, None, 1.0, 0.5),
    "both": MixDraws(0.2, 1.0, None, 0.8, 0.5),
    "minmax": MixDraws(0.0, 0.0, (0.2, 0.9), 1.0, 0.5),
    "minmax and mixup": MixDraws(0.8, 0.0, (0.2, 0.9), 1.0, 0.3),
    "rarely": MixDraws(0.8, 1.0, None, 0.3, 0.9),
}


class Numpy:
    """NumPy as timm sees it, whose random numbers come from a generator of the new kind."""

    def __init__(self, generator):
        self.random, self.generator = self, generator

    def __getattr__(self, name):
        return getattr(np, name)

    def rand(self):
        return self.generator.random()

    def beta(self, a, b):
        return self.generator.beta(a, b)

    def randint(self, low, high, size=None):
        return self.generator.integers(low, high)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_images_and_targets_are_timms(kind, smoothing, monkeypatch):
    torch, module = reference("torch"), reference("timm.data.mixup")
    draws, counts = KINDS[kind], {"mixed": 0, "boxed": 0}
    theirs = module.Mixup(
        draws.mixup,
        draws.cutmix,
        draws.cutmix_minmax,
        draws.probability,
        draws.switch_probability,
        label_smoothing=smoothing,
        num_classes=CLASSES,
    )
    operation = Mixing(draws, 0, CLASSES, smoothing, seed=5)
    for index in range(60):
        images, keys = normal(6, 3, 23, 17, seed=index), np.array([(3, index)] * 6)
        labels = np.random.default_rng(index).integers(0, CLASSES, 6).astype(np.int32)
        monkeypatch.setattr(module, "np", Numpy(np.random.default_rng((5, 3, index, 2))))
        expected, targets = theirs(torch.from_numpy(images.copy()), torch.from_numpy(labels))
        before = images.copy()
        mixed, ours, same_keys = operation(images, labels, keys)
        assert mixed is images and same_keys is keys and ours.dtype == np.float32
        assert np.abs(mixed - expected.numpy()).max() < 1e-6
        assert np.abs(ours - targets.numpy()).max() < 1e-7
        counts["mixed"] += not np.array_equal(mixed, before)
        counts["boxed"] += np.isin(mixed, before).all() and not np.array_equal(mixed, before)
    assert counts["mixed"] > (10 if kind == "rarely" else 30)
    assert (counts["boxed"] > 0) == (kind != "mixup") and (counts["boxed"] == counts["mixed"]) == (
        kind in ("cutmix", "minmax")
    )


@pytest.mark.parametrize("box", [None, (1, 3, 0, 4)])
def test_an_odd_batch_keeps_its_middle(box):
    images = normal(5, 2, 4, 6)
    before, share = images.copy(), 0.7
    mix_images(images, share, box)
    expected = share * before + (1 - share) * before[::-1]
    if box:
        expected = before.copy()
        expected[:, :, 1:3, 0:4] = before[::-1, :, 1:3, 0:4]
    assert np.abs(images - expected).max() < 1e-6 and np.array_equal(images[2], before[2])
    targets = mix_targets(np.array([0, 1, 2, 0, 2]), share, 3, 0.0)
    assert targets == pytest.approx(np.array([[0.7, 0, 0.3], [0.3, 0.7, 0], [0, 0, 1], [0.7, 0.3, 0], [0.3, 0, 0.7]]))


def draw_many(draws, count=4000, height=40, width=60):
    return [draws(np.random.default_rng((7, index)), height, width) for index in range(count)]


def test_how_often_batches_are_mixed_and_switched():
    results = draw_many(MixDraws(0.8, 1.0, None, 0.6, 0.3))
    for share, expected in (
        (np.mean([share < 1 for share, _ in results]), 0.6),
        (np.mean([box is not None for _, box in results]), 0.6 * 0.3),
    ):
        assert abs(share - expected) < DEVIATIONS * math.sqrt(expected * (1 - expected) / len(results))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_of_the_beta_distribution(alpha):
    shares = np.array([share for share, _ in draw_many(MixDraws(alpha, 0.0, None, 1.0, 0.5))])
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(shares.mean() - 0.5) < DEVIATIONS * math.sqrt(variance / len(shares))
    assert shares.var() == pytest.approx(variance, rel=0.1)


def test_boxes_are_of_the_share_and_anywhere():
    results = draw_many(MixDraws(0.0, 1.0, None, 1.0, 0.5))
    boxes = np.array([box for _, box in results if box is not None])
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    shares = np.array([share for share, box in results if box is not None])
    assert shares == pytest.approx(1 - heights * widths / 2400)
    assert boxes.min() == 0 and boxes[:, 1].max() == 40 and boxes[:, 3].max() == 60
    # a centre anywhere, of which each border is as near as the one opposite
    for low, high, size in ((boxes[:, 0], boxes[:, 1], 40), (boxes[:, 2], boxes[:, 3], 60)):
        assert abs(np.mean(low + high) / size - 1) < 0.05


def test_boxes_of_chosen_sides():
    boxes = np.array([box for _, box in draw_many(MixDraws(0.0, 0.0, (0.25, 0.75), 1.0, 0.5))])
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    assert (heights.min(), heights.max(), widths.min(), widths.max()) == (10, 29, 15, 44)
    assert MixDraws(0.0, 0.0, (0.5, 0.5), 1.0, 0.5)(np.random.default_rng(0), 10, 10)[0] == 0.75


def mixed(seed=1, epoch=0, index=0, off_epoch=0):
    images = normal(4, 3, 9, 9)
    operation = Mixing(KINDS["both"], off_epoch, CLASSES, 0.1, seed)
    images, targets, _ = operation(images, np.arange(4), np.array([(epoch, index), (epoch, 7), (epoch, 8), (epoch, 9)]))
    return images.tobytes() + targets.tobytes()


def test_mixing_depends_on_seed_epoch_and_first_index_only():
    keys = [(1, 0, 1), (2, 0, 1), (1, 1, 1), (1, 0, 2)]
    results = [mixed(*key) for key in keys]
    assert len(set(results)) == 4
    assert [mixed(*key) for key in keys[::-1]] == results[::-1]


def test_mixing_ends_with_an_epoch():
    plain = normal(4, 3, 9, 9).tobytes() + mix_targets(np.arange(4), 1.0, CLASSES, 0.1).tobytes()
    results = [[mixed(epoch=epoch, index=index, off_epoch=2) == plain for index in range(20)] for epoch in range(4)]
    assert not all(results[0]) and not all(results[1])
    assert all(results[2]) and all(results[3])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixing")
    write_images(folder, {"train": {"a": 9, "b": 9}, "val": {"a": 2, "b": 2}})
    return folder


def build(root, split="train", ranks=None, **settings):
    values = {"data.path": str(root), "network.num_classes": 2, "data.image_size": 33, "data.eval_resize": 33}
    values.update({"train.batch_size": 4, "data.workers": 2, "augment.mixup": 0.8, "augment.cutmix": 1.0})
    values.update({key.replace("__", "."): value for key, value in settings.items()})
    config = load_config(CONFIG, SCHEMAS, [(key, value, "test") for key, value in values.items()])
    return create_task(config).build_dataset(split, ranks or Ranks())


def test_the_pipeline_gives_targets_in_every_epoch(root):
    epochs = read_epochs(build(root, augment__mixup_off_epoch=2).pipeline(epochs=3), 3)
    for number, epoch in enumerate(epochs):
        targets = np.concatenate([targets for _, targets in epoch])
        assert targets.shape == (16, 2) and targets.dtype == np.float32
        assert targets.sum(1) == pytest.approx(1)
        assert np.allclose(targets.max(1), 0.95) == (number == 2)
    plain = read_epochs(build(root, augment__mixup=0.0, augment__cutmix=0.0).pipeline(epochs=3), 3)
    assert not np.array_equal(epochs[0][0][0], plain[0][0][0])
    for (images, targets), (plain_images, labels) in zip(epochs[2], plain[2]):
        assert np.array_equal(images, plain_images) and labels.ndim == 1
        assert np.array_equal(targets.argmax(1), labels)


@pytest.mark.parametrize("settings", [{"data__workers": 1}, {"data__worker_processes": True}], ids=["1", "processes"])
def test_workers_and_resuming_do_not_matter(root, settings):
    whole = read_epochs(build(root).pipeline(epochs=2), 2)
    others = read_epochs(build(root, **settings).pipeline(epochs=2), 2)
    assert all(are_equal(*pair) for pair in zip(whole, others))
    (rest,) = read_epochs(build(root, **settings).pipeline(first_epoch=1, first_batch=2))
    assert are_equal(rest, whole[1][2:])


def test_each_process_mixes_its_own_batches(root):
    first, second = (read_epochs(build(root, ranks=Ranks(rank, 2)).pipeline())[0] for rank in (0, 1))
    assert len(first) == len(second) == 2
    shares = [np.round(targets, 4).tolist() for targets in (first[0][1], second[0][1])]
    assert shares[0] != shares[1]


def test_evaluation_is_not_mixed(root):
    ours, plain = (read_epochs(build(root, "val", **mix).pipeline())[0] for mix in ({}, {"augment__mixup": 0.0}))
    assert are_equal(ours, plain) and ours[0][1].dtype == np.int32
