"""scripts/show_errors.py: which images are the worst, and which classes are confused, of a network that is known."""

import io

import numpy as np
import pytest
from helpers import PROJECT, call_here, write_images
from PIL import Image

from scripts.show_errors import confused_pairs, describe_pairs, draw_confusion, draw_errors, pool
from src.classification.metrics import ClassificationMetrics
from src.ghostnetv2 import create_network
from src.weights import save_weights

CONFIG = PROJECT / "configs" / "classification" / "digits.yaml"
NAMES = ("cat", "dog", "bird, a thing with feathers")
LOGITS = [[4, 0, 0], [0, 4, 0], [0, 1, 0], [2, 0, 0], [0, 0, 8], [0, 0, 8], [0, 1, 0]]
LABELS = [0, 0, 0, 1, 0, 2, 2]


@pytest.fixture
def metrics():
    metrics = ClassificationMetrics(len(LABELS))
    metrics.update(np.arange(len(LABELS)), LOGITS, np.array(LABELS))
    return metrics


def test_the_matrix_and_its_most_confused_pairs(metrics):
    counts = metrics.confusion(3)
    assert counts.tolist() == [[1, 2, 1], [1, 0, 0], [0, 1, 1]]
    assert confused_pairs(counts) == [(0, 1, 2), (0, 2, 1), (1, 0, 1), (2, 1, 1)]
    assert describe_pairs(counts, NAMES)[:2] == [
        "     2 of 4 'cat' taken for 'dog' (50.0%)",
        "     1 of 4 'cat' taken for 'bird' (25.0%)",
    ]
    assert confused_pairs(np.diag([3, 2])) == []


def test_drawings_say_what_they_show(metrics):
    images = [np.full((8, 8, 3), level, np.uint8) for level in (10, 20, 30)]
    figure = draw_errors(metrics, [4, 1, 5], images, NAMES)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:4] == [
        "cat\n→ bird\n100%, loss 8.00",
        "cat\n→ dog\n96%, loss 4.04",
        "bird\n→ bird\n100%, loss 0.00",
        "",
    ]
    assert [axis.title.get_color() for axis in figure.axes[:3]] == ["firebrick", "firebrick", "black"]

    axis, text, _ = draw_confusion(metrics.confusion(3), NAMES).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["cat", "dog", "bird"]
    assert sorted(int(item.get_text()) for item in axis.texts) == [1, 1, 1, 1, 1, 2]
    assert text.texts[0].get_text().splitlines()[1] == "     2 of 4 'cat' taken for 'dog' (50.0%)"


def test_names_are_drawn_as_they_are_and_cut():
    names = ("$x^{$", "a_name_of_one_word_that_is_long", "b")
    counts = np.array([[0, 1, 0], [0, 1, 0], [0, 0, 1]])
    figure = draw_confusion(counts, names)
    figure.savefig(io.BytesIO())  # between dollar signs matplotlib reads mathematics, and fails
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [r"\$x^{\$", "a_name_of_one_word_...", "b"]
    assert describe_pairs(counts, names) == ["     1 of 1 '$x^{$' taken for 'a_name_of_one_word_...' (100.0%)"]


def test_a_large_matrix_has_no_names_and_loses_no_pair():
    counts = 9 * np.eye(1001, dtype=np.int64)
    counts[700, 3] = 1
    axis = draw_confusion(counts, [f"class {index}" for index in range(1001)]).axes[0]
    assert not axis.texts and "class 0" not in [label.get_text() for label in axis.get_yticklabels()]
    drawn = axis.images[0].get_array()
    assert drawn.shape == (201, 201)  # blocks of 5
    assert drawn[140, 0] == pytest.approx(0.1) and (np.diag(drawn) == 1).all() and np.count_nonzero(drawn) == 202
    assert np.array_equal(pool(np.eye(250)), np.eye(250))


@pytest.mark.long
def test_the_command(tmp_path):
    """A network that gives the same logits for all images: those of the other class have the highest loss."""
    write_images(tmp_path / "data", {"val": {"bright": 3, "dark": 2}}, {"bright": 160, "dark": 0}, size=(33, 33))
    network = create_network("ghostnet_1x", 2)
    network.classifier.weight.set_data(0 * network.classifier.weight)
    network.classifier.bias.set_data(0 * network.classifier.bias)
    network.classifier.bias[0] = 2.0
    save_weights(network, tmp_path / "weights.ckpt")
    arguments = ["--config", CONFIG, "--checkpoint_path", "weights.ckpt", "--data_url", "data", "--num_classes", "2"]
    arguments += ["--output_dir", "errors", "--count", "2", "data.image_size=33", "data.eval_resize=33"]
    arguments += ["network.name=ghostnet_1x"]
    result = call_here("scripts/show_errors.py", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1:] == [
        "top-1 accuracy 60.00% of 5 images; most confused:",
        "     2 of 2 'dark' taken for 'bright' (100.0%)",
        "wrote errors/errors.png and errors/confusion.png",
    ]
    pixels = np.asarray(Image.open(tmp_path / "errors" / "errors.png").convert("RGB"))
    assert pixels.shape == (345, 2160, 3)
    images = pixels[130:300, 20:500]
    assert (images.max(2) < 100).mean() > 0.6  # the two dark ones
    result = call_here("scripts/show_errors.py", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (2, "error: errors/errors.png: exists; --force overwrites it\n")
