"""Images and masks: pairs, labels, whole epochs, and mistakes that are named."""

import numpy as np
import pytest
from helpers import PROJECT, are_equal, read_epochs
from PIL import Image

from src.config import load_config
from src.errors import UserError
from src.ranks import Ranks
from src.segmentation.dataset import load_labels, load_pair, pair_files
from src.segmentation.loss import IGNORED
from src.tasks import SCHEMAS, create_task

CONFIG = PROJECT / "configs" / "segmentation" / "camvid.yaml"
ALONE = Ranks()
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))


@pytest.fixture
def root(tmp_path):
    """11 + 3 images of 40x50 pixels, the lower half brighter; mask 0 in a corner, else 1 above and 2 below."""
    for split, count in (("training", 11), ("validation", 3)):
        for number in range(count):
            image, mask = np.full((50, 40, 3), 10 * number, np.uint8), np.ones((50, 40), np.uint8)
            image[25:] += 100
            mask[25:], mask[:5, :5] = 2, 0
            save(tmp_path / "images" / split / f"{number:02d}.png", image)
            save(tmp_path / "annotations" / split / f"{number:02d}.png", mask)
    return tmp_path


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def build(root, split="train", ranks=ALONE, **settings):
    """The `Dataset` of a split; `settings` has two underscores for a dot."""
    values = {
        "data.path": str(root),
        "network.num_classes": 2,
        "data.class_names": [],
        "data.base_size": [50, 40],
        "data.crop_size": [48, 36],
        "augment.ratio": [1.0, 1.0],
        "augment.photometric": False,
        "train.batch_size": 2,
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    config = load_config(CONFIG, SCHEMAS, [(key, value, "test") for key, value in values.items()])
    return create_task(config).build_dataset(split, ranks)


def read(dataset, epochs=1):
    """Whole epochs from a new pipeline of a `Dataset`."""
    batches = read_epochs(dataset.pipeline(epochs=epochs), epochs)
    assert [len(epoch) for epoch in batches] == [dataset.batches] * epochs
    return batches


def numbers(images):
    """The number of each image (B, 3, H, W) from its upper pixels."""
    pixels = images * STD[:, None, None] + MEAN[:, None, None]
    return np.rint(pixels[:, :, 20].mean((1, 2)) * 25.5).astype(int).tolist()


def test_pairs_are_sorted_and_of_the_same_name(root):
    (root / "images" / "training" / "notes.txt").write_text("no image")
    pairs, others = pair_files(root, "train")
    assert [image.name for image, _ in pairs] == [mask.name for _, mask in pairs] == [f"{i:02d}.png" for i in range(11)]
    assert all("annotations" in mask.parts for _, mask in pairs)
    dataset = build(root)
    assert dataset.records == pairs and others == 1
    assert len(dataset.notes) == 1 and dataset.notes[0].startswith(f"{root}: 1 other files are left out; ")
    validation = build(root, "val")
    assert (len(validation.records), validation.notes) == (3, ())


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_labels_begin_at_the_class_of_value_1(tmp_path, mode):
    values = np.array([[0, 1, 2], [150, 3, 0]], np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette([7, 8, 9] * 256)  # colours are of no account
    image.save(tmp_path / "mask.png")
    labels = load_labels(tmp_path / "mask.png", 150, False)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[IGNORED, 0, 1], [149, 2, IGNORED]]


def test_255_classes_are_the_most():
    names = [str(index) for index in range(256)]
    overrides = [("network.num_classes", 256, "test"), ("data.class_names", names, "test")]
    with pytest.raises(UserError, match="256 is out of range: at least 1 and at most 255"):
        load_config(CONFIG, SCHEMAS, overrides)


def test_training_batches(root):
    epochs = read(build(root, data__crop_size=[60, 36]), 2)
    seen = []
    for images, labels in epochs[0]:
        assert images.shape == (2, 3, 60, 36) and images.dtype == np.float32
        assert labels.shape == (2, 60, 36) and labels.dtype == np.uint8
        assert (labels[:, 10:25] == 0).all() and (labels[:, 25:50] == 1).all()
        assert (labels[:, 50:] == IGNORED).all()
        assert np.abs(images[:, :, 50:]).max() < 0.01  # filled with the mean
        seen += numbers(images)
    assert len(set(seen)) == 10  # 11 images, the last one in the epoch's order is left out
    assert seen != [number for images, _ in epochs[1] for number in numbers(images)]


def test_every_pipeline_of_a_dataset_gives_the_same(root):
    """Also one from within an epoch, and with another number of workers."""
    settings = {"augment__ratio": [0.5, 2.0], "augment__photometric": True, "data__workers": 2}
    dataset = build(root, **settings)
    first, second = read(dataset, 2)
    assert not np.array_equal(first[0][0], second[0][0])
    assert are_equal(first, *read(dataset))
    single = build(root, **{**settings, "data__workers": 1})
    (rest,) = read_epochs(single.pipeline(first_epoch=1, first_batch=2))
    assert len(rest) == 3 and are_equal(rest, second[2:])


def test_processes_train_on_as_many_batches_and_validate_each_image_once(root):
    batches = [read(build(root, ranks=Ranks(rank, 2)))[0] for rank in (0, 1)]
    seen = [[n for images, _ in part for n in numbers(images)] for part in batches]
    assert len(batches[0]) == len(batches[1]) == 2
    assert len(set(seen[0] + seen[1])) == 8
    samples = [read(build(root, "val", Ranks(rank, 2)))[0] for rank in (0, 1)]
    assert [[int(key[1]) for _, _, key in part] for part in samples] == [[0, 2], [1]]


def test_validation_keeps_every_size(root):
    save(root / "images" / "validation" / "03.png", np.zeros((33, 70, 3), np.uint8))
    save(root / "annotations" / "validation" / "03.png", np.zeros((33, 70), np.uint8))
    (samples,) = read(build(root, "val"))
    assert [image.shape for image, _, _ in samples] == [(50, 40, 3)] * 3 + [(33, 70, 3)]
    assert [labels.shape for _, labels, _ in samples] == [(50, 40)] * 3 + [(33, 70)]
    assert samples[1][0][20, 0].tolist() == [10, 10, 10]


def test_missing_folders_and_masks_are_named(root, tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder; --data_url"):
        pair_files(tmp_path / "nowhere", "train")
    (root / "annotations" / "training" / "03.png").unlink()
    with pytest.raises(UserError, match=r"images/training/03.png has no mask, expected .*annotations/training/03.png"):
        pair_files(root, "train")
    (root / "annotations" / "training" / "07.png").unlink()
    with pytest.raises(UserError, match=r"03.png and 1 more have no mask"):
        pair_files(root, "train")
    (root / "annotations" / "validation").rename(root / "annotations" / "val")
    with pytest.raises(UserError, match="annotations/validation: no such folder; the layout is"):
        pair_files(root, "val")


def test_wrong_masks_are_named(tmp_path):
    image, mask = tmp_path / "a.png", tmp_path / "mask.png"
    save(image, np.zeros((5, 6, 3), np.uint8))
    save(mask, np.zeros((6, 5), np.uint8))
    with pytest.raises(UserError, match="mask.png: is of 5x6 pixels, its image of 6x5"):
        load_pair(image, mask, 3, False)
    save(mask, np.full((5, 6), 4, np.uint8))
    with pytest.raises(UserError, match=r"mask.png: has the value 4, allowed are 0 \(other\) to 3 \(classes\)"):
        load_pair(image, mask, 3, False)
    save(mask, np.zeros((5, 6, 3), np.uint8))
    with pytest.raises(UserError, match="mask.png: has 3 channels, a mask has one"):
        load_pair(image, mask, 3, False)
    mask.write_bytes(b"no image")
    with pytest.raises(UserError, match="mask.png: is not a whole image"):
        load_pair(image, mask, 3, False)


def test_an_image_and_its_mask_turn_together(tmp_path):
    """EXIF's orientation 6 shows the stored left edge on top; a mask without EXIF must fit the turned image."""
    image, mask, pixels = tmp_path / "image.png", tmp_path / "mask.png", np.zeros((5, 6, 3), np.uint8)
    pixels[:, :2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(image, exif=exif)
    for options in ({"exif": exif}, {}):
        stored = np.where(pixels[..., 0] == 255, 2, 1).astype(np.uint8)
        Image.fromarray(stored if options else stored.T).save(mask, **options)
        turned, labels = load_pair(image, mask, 2, True)
        assert turned.shape == (6, 5, 3) and (turned[:2] == 255).all() and (turned[2:] == 0).all()
        assert (labels[:2] == 1).all() and (labels[2:] == 0).all()
    with pytest.raises(UserError, match="mask.png: is of 5x6 pixels, its image of 6x5"):
        load_pair(image, mask, 2, False)


def test_a_wrong_value_is_named_through_the_pipeline(root):
    path = root / "annotations" / "training" / "04.png"
    save(path, np.full((50, 40), 3, np.uint8))
    with pytest.raises(RuntimeError, match=f"UserError: {path}: has the value 3, allowed are 0"):
        read(build(root), 3)


def test_too_few_images(root):
    with pytest.raises(UserError, match="has 11 images, too few for one update of 16: on each of 2 devices"):
        build(root, ranks=Ranks(0, 2), train__batch_size=8)
    with pytest.raises(UserError, match="has 3 images, too few for one on each of 4 devices"):
        build(root, "val", Ranks(0, 4))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.class_names", ["sky"], "data.class_names: has 1 names, network.num_classes is 11"),
        ("data.base_size", [360, 480], r"data.base_size: \[360, 480\] is not a long and a short side"),
        ("augment.ratio", [2.0, 0.5], r"augment.ratio: \[2.0, 0.5\] is not in rising order"),
        ("train.batch_size", 1, "train.batch_size: 1 is out of range: at least 2"),
        ("evaluation.batch_size", 2, "evaluation.batch_size: 2 is out of range: at least 1 and at most 1"),
        ("evaluation.scales", [], "evaluation.scales: is empty"),
    ],
)
def test_wrong_settings_are_named(key, value, message):
    with pytest.raises(UserError, match=message):
        load_config(CONFIG, SCHEMAS, [(key, value, "test")])
