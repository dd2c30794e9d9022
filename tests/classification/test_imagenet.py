"""ImageNet's class index and its lists of validation labels."""

import dataclasses

import numpy as np
import pytest
from helpers import PROJECT, shared_data
from PIL import Image

from src.classification.dataset import list_class_folders
from src.classification.imagenet import load_classes, read_labels
from src.classification.settings import ClassificationConfig
from src.classification.task import ClassificationTask
from src.config import load_config
from src.errors import UserError
from src.ranks import Ranks
from src.tasks import SCHEMAS
from src.weights.names import TIMM_NAMES

WNIDS = ("n01440764", "n01443537", "n01484850", "n01491361")


def test_the_index_is_the_sorted_list_of_wnids():
    wnids, names = load_classes()
    assert len(wnids) == len(set(wnids)) == len(names) == 1000
    assert list(wnids) == sorted(wnids)
    # timm's and torchvision's indices of some well-known classes
    known = {0: "tench", 207: "golden retriever", 281: "tabby", 817: "sports car", 999: "toilet tissue"}
    assert all(names[index].startswith(name) for index, name in known.items())


def test_a_part_of_the_folders_keeps_the_whole_index():
    folder = shared_data("imagenet_samples")
    expected = folder.joinpath("wnids.txt").read_text().split()
    wnids = load_classes()[0]
    assert list(wnids) == expected
    names, paths, labels, _ = list_class_folders(folder / "val", wnids)
    assert names == wnids and len(paths) == 100
    assert all(expected[label] == path.parent.name for path, label in zip(paths, labels))
    assert labels.max() > 900


@pytest.fixture
def flat(tmp_path):
    """A dataset whose `val` is a flat folder of four images, as ImageNet's is downloaded."""
    (tmp_path / "val").mkdir()
    for number in range(1, 5):
        Image.new("RGB", (40, 40)).save(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    return tmp_path


def labels_of(flat, text, name="labels.txt"):
    (flat / name).write_text(text)
    return read_labels(flat / name, sorted((flat / "val").iterdir()), WNIDS).tolist()


def test_lists_of_labels(flat):
    stem = "ILSVRC2012_val_0000000"
    assert labels_of(flat, f"{stem}2.JPEG 0\n{stem}1.JPEG 3\n{stem}4.JPEG 1\n{stem}3.JPEG 1\n") == [3, 0, 1, 1]
    assert labels_of(flat, "\n".join(f"val/{stem}{n}.JPEG,{WNIDS[4 - n]}" for n in range(1, 5))) == [3, 2, 1, 0]
    assert labels_of(flat, "\n".join(WNIDS)) == [0, 1, 2, 3]
    assert labels_of(flat, "2\n0\n1\n1\n") == [2, 0, 1, 1]
    kaggle = "ImageId,PredictionString\n" + "".join(
        f"{stem}{n},{WNIDS[n - 1]} 1 2 3 4 {WNIDS[n - 1]} 5 6 7 8 \n" for n in (3, 1, 2, 4)
    )
    assert labels_of(flat, kaggle, "LOC_val_solution.csv") == [0, 1, 2, 3]


def test_the_development_kits_numbers(flat):
    from scipy.io import savemat

    truth = "4\n1\n2\n2\n"
    with pytest.raises(UserError, match="numbers from 1 to 4 need the development kit's meta.mat beside the file"):
        labels_of(flat, truth)
    order = (2, 0, 3, 1)  # the kit numbers classes in an order of its own
    synsets = np.array(
        [(number + 1, WNIDS[index]) for number, index in enumerate(order)],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object)],
    )
    savemat(str(flat / "meta.mat"), {"synsets": synsets[:, None]})
    assert labels_of(flat, truth) == [1, 2, 0, 0]


def test_mistakes_in_lists(flat):
    with pytest.raises(UserError, match=r"labels\.txt: has 1 labels for 4 images"):
        labels_of(flat, "0\n")
    with pytest.raises(UserError, match=r"has no label for ILSVRC2012_val_00000002\.JPEG and 2 other images"):
        labels_of(flat, "ILSVRC2012_val_00000001.JPEG 0\n")
    with pytest.raises(UserError, match=r"'n9' is no class: neither a name nor an index from 0 to 3"):
        labels_of(flat, "n9\n0\n0\n0\n")
    with pytest.raises(UserError, match=r"nothing\.txt: cannot be read: No such file"):
        read_labels(flat / "nothing.txt", [], WNIDS)


def task(path, **data):
    config = ClassificationConfig()
    data = dataclasses.replace(
        config.data, path=str(path), class_index="imagenet", image_size=40, eval_resize=40, **data
    )
    return ClassificationTask(dataclasses.replace(config, data=data))


def test_a_flat_validation_folder_evaluates(flat):
    (flat / "truth.txt").write_text("\n".join((load_classes()[0][7], "2", "0", "999")))
    (flat / "val" / "readme.txt").write_text("x")
    built = task(flat, val_labels=str(flat / "truth.txt"))
    dataset = built.build_dataset("val", Ranks())
    batches = list(dataset.pipeline().create_tuple_iterator(num_epochs=1, output_numpy=True))
    assert np.concatenate([labels for _, labels, _ in batches]).tolist() == [7, 2, 0, 999]
    assert dataset.class_names == () and built.class_names() == load_classes()[1]  # the index names them
    assert [line.split(" are left out")[0] for line in dataset.notes] == [f"{flat / 'val'}: 1 other files"]
    with pytest.raises(UserError, match="val: holds no class folders; data.val_labels can name a list of labels"):
        task(flat).build_dataset("val", Ranks())


def test_a_folder_that_is_no_wnid_is_named(flat):
    (flat / "val" / "n01440765").mkdir()
    with pytest.raises(UserError, match=r"n01440765: is no class of this network \(did you mean 'n01440764'\?\)"):
        task(flat).build_dataset("val", Ranks())


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_a_config_for_each_published_checkpoint(name):
    config = load_config(PROJECT / "configs" / "classification" / f"{name}_imagenet.yaml", SCHEMAS)
    assert (config.network.name, config.network.num_classes, config.data.class_index) == (name, 1000, "imagenet")
    # timm's evaluation of these weights
    assert (config.data.image_size, config.data.eval_resize, config.data.interpolation) == (224, 256, "bicubic")
