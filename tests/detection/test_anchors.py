"""Anchors: places of the grids by hand, clusters of box sizes that are there, and the script."""

import json

import numpy as np
import pytest
import yaml
from helpers import call_here

from src.detection.anchors import ANCHORS, STRIDES, cluster_sizes, mean_best_iou, place_anchors, scale_anchors
from src.detection.boxes import size_iou
from src.errors import UserError

CENTRES = np.array([(4, 8), (9, 5), (14, 15), (20, 40), (42, 22), (35, 35), (70, 90), (120, 60), (150, 160)])


def draw_sizes(count=400):
    """Box sizes close to `CENTRES`."""
    generator = np.random.default_rng(0)
    return CENTRES[generator.integers(0, len(CENTRES), count)] * generator.uniform(0.97, 1.03, (count, 2))


def test_places_of_the_recipe():
    corners, sizes, strides = place_anchors(ANCHORS, 320)
    assert corners.shape == sizes.shape == (3 * (10**2 + 20**2 + 40**2), 2) and strides.shape == (6300, 1)
    assert corners[0].tolist() == [0, 0] and sizes[0].tolist() == [220, 125] and strides[0] == 32
    assert corners[3].tolist() == [32, 0] and sizes[5].tolist() == [264, 266]  # the cell to the right
    assert corners[30].tolist() == [0, 32]  # the row below
    assert corners[300 + 3 * (20 * 7 + 4) + 1].tolist() == [4 * 16, 7 * 16] and strides[300] == 16
    assert corners[-1].tolist() == [312, 312] and sizes[-1].tolist() == [72, 42] and strides[-1] == 8


def test_odd_images_have_cells_at_their_edges():
    corners, _, strides = place_anchors(ANCHORS, 65)
    assert [int((strides == stride).sum()) for stride in STRIDES] == [3 * 9, 3 * 25, 3 * 81]
    assert corners[3 * 9 - 1].tolist() == [64, 64]


def test_scaled_anchors():
    assert scale_anchors(ANCHORS, 0.5)[2] == ((5, 7.5), (12, 18), (36, 21))


def test_fit_of_anchors_is_the_mean_of_the_best():
    sizes, anchors = np.array([[10.0, 20], [4, 4]]), np.array([[20.0, 10], [10, 20], [2, 2]])
    assert mean_best_iou(sizes, anchors) == pytest.approx((1 + 0.25) / 2)


def test_clusters_are_found():
    sizes = draw_sizes()
    anchors = cluster_sizes(sizes)
    assert [len(row) for row in anchors] == [3, 3, 3]
    flat = np.array(anchors).reshape(9, 2)
    assert (np.diff(flat.prod(1)) < 0).all()  # the largest for the coarsest map
    nearest = size_iou(CENTRES.astype(float), flat)
    assert sorted(nearest.argmax(1)) == list(range(9)) and nearest.max(1).min() > 0.97
    assert cluster_sizes(sizes) == anchors


def test_too_few_sizes_are_an_error():
    with pytest.raises(UserError, match="have 2 different sizes, at least 9"):
        cluster_sizes(np.array([[3.0, 4]] * 20 + [[5, 6]] * 20))


def test_script_prints_a_setting(tmp_path):
    path = tmp_path / "instances.json"
    sizes = draw_sizes()
    annotations = [{"bbox": [0, 0, 4 * width, 4 * height]} for width, height in sizes.tolist()]
    annotations += [{"bbox": [0, 0, 640, 320], "iscrowd": 1}, {"bbox": [5, 5, 0, 9]}]
    annotations = [{"id": i, "image_id": 7, "category_id": 1, **entry} for i, entry in enumerate(annotations)]
    images = [{"id": 7, "file_name": "a.png", "width": 640, "height": 320}]
    categories = [{"id": 1, "name": "cat"}]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    done = call_here("scripts/make_anchors.py", path, "--image_size", 160, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mean best IoU of 400 boxes with these anchors: 0.9" in done.stdout
    setting = yaml.safe_load(done.stdout.splitlines()[-1])
    assert setting["anchors"] == [[[round(s) for s in size] for size in row] for row in cluster_sizes(sizes)]


@pytest.mark.parametrize("text", ["no json", "[]", '{"images": []}'])
def test_script_names_a_wrong_file(tmp_path, text):
    from scripts.make_anchors import read_sizes

    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"wrong\.json.*: is not (valid JSON|a COCO file)"):
        read_sizes(path, 320)
