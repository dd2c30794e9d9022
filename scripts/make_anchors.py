"""Print anchors for a dataset's boxes: python scripts/make_anchors.py instances_train2017.json --image_size 320

The last line is for the `anchors` setting of a detection configuration.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.console import Parser, run
from src.data.settings import MAX_INPUT_SIZE
from src.detection.anchors import ANCHOR_IMAGE_SIZE, ANCHORS, cluster_sizes, mean_best_iou, scale_anchors
from src.detection.annotations import read_content
from src.errors import UserError


def read_sizes(path, image_size):
    """Widths and heights (N, 2) of the boxes in a COCO annotation file, resized as in training.

    An image's longer side becomes `image_size`. Crowds and boxes without an area are left out.

    Raises:
        UserError: if the file is not of that kind.
    """
    content = read_content(path)
    longer = {image["id"]: max(image["width"], image["height"]) for image in content["images"]}
    boxes = [
        (*annotation["bbox"][2:], longer[annotation["image_id"]])
        for annotation in content["annotations"]
        if not annotation.get("iscrowd")
    ]
    width, height, side = np.array(boxes, np.float64).reshape(-1, 3).T
    sizes = np.stack((width, height), 1) * image_size / side[:, None]
    return sizes[(sizes > 0).all(1)]


def main():
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("annotations", type=Path, metavar="FILE", help="COCO annotations of the training images")
    parser.add_argument("--image_size", type=int, default=ANCHOR_IMAGE_SIZE, help="side of the network's input, pixels")
    arguments = parser.parse_args()
    if not 1 <= arguments.image_size <= MAX_INPUT_SIZE:
        raise UserError(f"--image_size {arguments.image_size}: must be at least 1 and at most {MAX_INPUT_SIZE}")
    sizes = read_sizes(arguments.annotations, arguments.image_size)
    try:
        found = cluster_sizes(sizes)
    except UserError as error:
        raise UserError(f"{arguments.annotations}: {error}") from None
    anchors = [[[max(1, round(side)) for side in size] for size in row] for row in found]
    recipe = scale_anchors(ANCHORS, arguments.image_size / ANCHOR_IMAGE_SIZE)
    for name, each in (("these", anchors), ("the recipe's", recipe)):
        print(f"mean best IoU of {len(sizes)} boxes with {name} anchors: {mean_best_iou(sizes, flatten(each)):.3f}")
    print(f"anchors: {anchors}")


def flatten(anchors):
    """All anchors of all strides (9, 2)."""
    return np.array(anchors, np.float64).reshape(-1, 2)


if __name__ == "__main__":
    run(main)
