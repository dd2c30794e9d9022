"""Dropout and stochastic depth: numbers against the published generator, masks, and a state that is saved."""

import math

import mindspore
import numpy as np
import pytest
from helpers import normal, reference
from mindspore import Tensor

from src.layers.dropout import MODULI, WIDTH, Dropout, DropPath, UniformGenerator


def generator(seed, width=WIDTH):
    return UniformGenerator(seed, "dropout", 0, 1, width)


def wichmann_hill(x, y, z, count):
    """AS 183 as published: three generators, one step each a number."""
    for _ in range(count):
        x, y, z = 171 * x % 30269, 172 * y % 30307, 170 * z % 30323
        yield math.modf(x / 30269 + y / 30307 + z / 30323)[0]


@pytest.mark.parametrize("width", [WIDTH, 1])
def test_numbers_are_those_of_the_published_generator(width):
    uniform = generator(3, width)
    start = uniform.state.asnumpy()[:, 0].tolist()
    drawn = np.concatenate([uniform.draw(2, 2 * width).asnumpy().reshape(-1, width) for _ in range(3)])
    for column in {0, width // 2, width - 1}:
        expected = list(wichmann_hill(*(state[column] for state in start), len(drawn)))
        assert np.abs(drawn[:, column] - expected).max() < 1e-6


def test_remainders_are_exact():
    """Next to each multiple of a modulus, where a quotient in float32 is one off, and at the largest products."""
    uniform = generator(0)
    for index, modulus in enumerate(MODULI):
        quotients = np.arange(0, modulus - 1, 7, dtype=np.int64)
        near = (quotients[:, None] * modulus + [0, 1, modulus - 1]).ravel()
        numbers = np.zeros((3, 1, len(near)), np.int32)
        numbers[index, 0] = near
        assert np.array_equal(uniform.remainder(Tensor(numbers)).asnumpy()[index, 0], near % modulus)


@pytest.mark.parametrize("width", [WIDTH, 1])
def test_numbers_are_uniform_and_independent(width):
    numbers = generator(0, width).draw(100 * WIDTH // width, width).asnumpy().reshape(100, WIDTH)
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.histogram(numbers, 20, (0, 1))[0]
    assert np.abs(counts - numbers.size / 20).max() < 5 * math.sqrt(numbers.size / 20)
    for first, second in ((numbers[:-1], numbers[1:]), (numbers[:, :-1], numbers[:, 1:])):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 5 / math.sqrt(numbers.size)


@pytest.mark.parametrize("mode", [mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE], ids=["graph", "pynative"])
def test_masks(mode):
    mindspore.set_context(mode=mode)
    dropout = Dropout(0.3).set_train()
    x = np.random.default_rng(0).uniform(1, 2, (50, 3, 8, 9)).astype(np.float32)
    first, second = (dropout(Tensor(x)).asnumpy() for _ in range(2))
    for result in (first, second):
        kept = result != 0
        assert np.allclose(result[kept], x[kept] / 0.7)
        assert abs(kept.mean() - 0.7) < 5 * math.sqrt(0.21 / x.size)
    assert abs(((first != 0) == (second != 0)).mean() - 0.58) < 0.02  # 0.7 ** 2 + 0.3 ** 2
    values, gradient = mindspore.value_and_grad(dropout)(Tensor(x))
    assert np.allclose(gradient.asnumpy() * x, values.asnumpy())
    assert np.array_equal(dropout.set_train(False)(Tensor(x)).asnumpy(), x)


@pytest.mark.parametrize("count", [2, 3])
def test_processes_have_the_numbers_of_the_samples_that_they_own(count):
    """Of a global batch of `4 * count` samples, each process has every `count`-th one; two batches in turn."""
    x = np.ones((4 * count, 1280), np.float32)

    def masks(rank, count):
        dropout = Dropout(0.5).set_train()
        dropout.seed((5, 1), "dropout", rank, count)
        return [dropout(Tensor(x[rank::count])).asnumpy() for _ in range(2)]

    whole = masks(0, 1)
    assert not np.array_equal(*whole)
    for rank in range(count):
        for part, batch in zip(masks(rank, count), whole):
            assert np.array_equal(part, batch[rank::count])


def test_a_saved_state_continues_the_masks():
    x = Tensor(np.ones((4, 1280), np.float32))
    dropout = Dropout(0.5).set_train()
    dropout(x)
    state = dropout.generator.state.asnumpy().copy()  # else a view of what changes
    expected = dropout(x).asnumpy()
    other = Dropout(0.5).set_train()
    other.generator.state.set_data(Tensor(state))
    assert np.array_equal(other(x).asnumpy(), expected)
    other.seed((1, 2), "state", 0, 1)
    assert other.generator.state.name == "state"
    assert not np.array_equal(other(x).asnumpy(), expected)


def test_the_state_is_no_parameter_of_the_network():
    assert not list(Dropout(0.5).get_parameters())
    assert (generator(0).state.asnumpy() < np.array(MODULI)[:, None, None]).all()


@pytest.mark.parametrize("mode", [mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE], ids=["graph", "pynative"])
def test_paths_are_dropped_by_the_image(mode):
    mindspore.set_context(mode=mode)
    drop_path = DropPath(0.3, 1).set_train()
    x = np.random.default_rng(0).uniform(1, 2, (4000, 3, 2, 2)).astype(np.float32)
    first, second = (drop_path(Tensor(x)).asnumpy() for _ in range(2))
    for result in (first, second):
        kept = (result != 0).reshape(len(x), -1)
        assert np.array_equal(kept.all(1), kept.any(1))  # all of an image, or nothing
        assert np.allclose(result[kept[:, 0]], x[kept[:, 0]] / 0.7)
        assert abs(kept[:, 0].mean() - 0.7) < 5 * math.sqrt(0.21 / len(x))
        assert abs(result.mean() / x.mean() - 1) < 5 * math.sqrt(0.3 / 0.7 / len(x))
    assert abs(((first != 0) == (second != 0)).mean() - 0.58) < 5 * math.sqrt(0.25 / len(x))  # 0.7 ** 2 + 0.3 ** 2
    assert np.array_equal(drop_path.set_train(False)(Tensor(x)).asnumpy(), x)
    assert not list(drop_path.get_parameters())


@pytest.mark.parametrize("shape", [(6, 4, 3, 5), (6, 4)])
def test_a_dropped_path_has_torchs_values_and_gradients(shape, monkeypatch):
    """timm's function gets the mask that was drawn; the sum of squares makes the gradient depend on the values."""
    torch, drop = reference("torch"), reference("timm.layers.drop")
    x, drop_path = normal(*shape), DropPath(0.4, 1).set_train()
    kept = generator((0, 1), 1).draw(6, 1).asnumpy().reshape(6, *[1] * (len(shape) - 1)) >= 0.4
    assert 0 < kept.sum() < 6

    def loss(x):
        return (drop_path(x) ** 2).sum()

    values, gradient = mindspore.value_and_grad(loss)(Tensor(x))
    monkeypatch.setattr(torch.Tensor, "bernoulli_", lambda self, p: self.copy_(torch.from_numpy(kept)))
    leaf = torch.from_numpy(x).requires_grad_()
    expected = (drop.drop_path(leaf, 0.4, True) ** 2).sum()
    expected.backward()
    assert float(values) == pytest.approx(expected.item(), rel=1e-5)
    assert np.allclose(gradient.asnumpy(), leaf.grad.numpy(), rtol=1e-5)


def test_dropped_paths_keep_the_type():
    x = Tensor(np.ones((8, 2, 1, 1), np.float16))
    result = DropPath(0.5, 1).set_train()(x)
    assert result.dtype == mindspore.float16 and set(result.asnumpy().ravel().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("count", [2, 3])
def test_processes_drop_the_paths_of_the_images_that_they_own(count):
    x = np.ones((8 * count, 2, 1, 1), np.float32)

    def masks(rank, count):
        drop_path = DropPath(0.5, 1).set_train()
        drop_path.seed((5, 1), "dropout", rank, count)
        return [drop_path(Tensor(x[rank::count])).asnumpy() for _ in range(2)]

    whole = masks(0, 1)
    assert not np.array_equal(*whole)
    for rank in range(count):
        assert all(np.array_equal(part, batch[rank::count]) for part, batch in zip(masks(rank, count), whole))
