"""A dataset in COCO's layout for the tests of detection."""

import pytest
from detection.coco_files import write_split


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder with the images and annotations of both splits."""
    root = tmp_path_factory.mktemp("coco")
    write_split(root, "train2017")
    write_split(root, "val2017")
    return root
