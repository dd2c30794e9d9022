"""Images, masks, annotations, lists of labels and folders."""

import json
import os

import numpy as np
from bad_input.case import CLASSIFICATION, DETECTION, SEGMENTATION, WEIGHTS, BadInput
from PIL import Image
from PIL.PngImagePlugin import PngInfo

TRAIN, PREDICT, ANCHORS = "train.py", "scripts/predict.py", "scripts/make_anchors.py"
WITH_WEIGHTS = ("--config", CLASSIFICATION, "--checkpoint_path", WEIGHTS)
IMAGE = "classes/train/a/0.png"
MASK = "ade/annotations/training/0.png"
ANNOTATIONS = "coco/annotations/instances_train2017.json"


def write(path, content):
    """Prepare a file of some bytes or text."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / path).write_bytes(data)


def save(path, pixels):
    """Prepare an image, as TIFF where its numbers need that."""

    def prepare(folder):
        Image.fromarray(pixels).save(folder / path, format="TIFF" if pixels.dtype.kind == "f" else None)

    return prepare


def write_packed_text(folder):
    """Write a PNG of a text that takes a thousand times its room in the file."""
    text = PngInfo()
    text.add_text("key", "x" * 80_000_000, zip=True)
    Image.new("RGB", (40, 40)).save(folder / "x.png", pnginfo=text)


def replace(path, make):
    """Prepare something other than a file in the place of one: `make` gets its path."""

    def prepare(folder):
        (folder / path).unlink()
        make(folder / path)

    return prepare


def change(edit):
    """Prepare annotations that `edit` has changed in place."""

    def prepare(folder):
        content = json.loads((folder / ANNOTATIONS).read_text())
        edit(content)
        (folder / ANNOTATIONS).write_text(json.dumps(content))

    return prepare


def replace_text(old, new):
    """Prepare annotations with numbers that Python would not write."""

    def prepare(folder):
        text = (folder / ANNOTATIONS).read_text()
        assert old in text
        (folder / ANNOTATIONS).write_text(text.replace(old, new, 1))

    return prepare


def set_entry(section, key, value):
    """Prepare annotations in which an entry's key has another value."""
    return change(lambda content: content[section][0].update({key: value}))


def predicted(path, message, prepare):
    return BadInput(PREDICT, (path, *WITH_WEIGHTS), message, prepare)


def trained(config, message, prepare, *settings):
    return BadInput(TRAIN, ("--config", config, *settings), message, prepare)


def annotated(message, prepare):
    return trained(DETECTION, message, prepare)


def clustered(message, prepare):
    return BadInput(ANCHORS, (ANNOTATIONS,), f"{ANNOTATIONS}{message}", prepare)


def listed(message, text, path="labels.txt"):
    """Labels of a validation folder without class folders."""

    def prepare(folder):
        for name in ("a", "b"):
            (folder / f"classes/val/{name}/0.png").rename(folder / f"classes/val/{name}.png")
            (folder / f"classes/val/{name}").rmdir()
        (folder / "labels.txt").write_bytes(text)

    return trained(CLASSIFICATION, message, prepare, f"data.val_labels={path}", "data.class_names=[a, b]")


FLOATS, WIDE = np.full((48, 64), 1.5, np.float32), np.full((48, 64), 70000, np.int32)
BOX = '"bbox": [10, 5, 20, 30]'  # of annotation 0

CASES = {
    "image: floating point": predicted(
        "x.tif", "x.tif: is stored as 32-bit floating point (mode F)", save("x.tif", FLOATS)
    ),
    "image: 32-bit numbers": predicted(
        "x.tif", "x.tif: is stored as 32-bit or signed whole numbers (mode I)", save("x.tif", WIDE)
    ),
    "image: empty": predicted("x.png", "x.png: is not a whole image: unknown format", write("x.png", "")),
    "image: a web page": predicted("x.jpg", "x.jpg: is not a whole image: unknown format", write("x.jpg", "<html>")),
    "image: cut off": trained(
        CLASSIFICATION, f"{IMAGE}: is not a whole image", lambda f: os.truncate(f / IMAGE, 300), "data.workers=1"
    ),
    "image: a pipe": predicted("x.png", "x.png: is no file, an image is needed", lambda f: os.mkfifo(f / "x.png")),
    "image: a pipe in a folder": trained(DETECTION, "a.png: no such file", replace("coco/train2017/a.png", os.mkfifo)),
    "image: a device": predicted("/dev/zero", "/dev/zero: is no file, an image is needed", None),
    "image: a link to itself": predicted(
        "x.png", "x.png: no such file or folder", lambda f: (f / "x.png").symlink_to("x.png")
    ),
    "image: a name that is no text": predicted(
        os.fsdecode(b"\xff.png"), "\\udcff.png: is not a whole image", write(os.fsdecode(b"\xff.png"), "x")
    ),
    "image: a text that unpacks to 80 MB": predicted(
        "x.png", "x.png: is not a whole image: Decompr", write_packed_text
    ),
    "image: broken, in evaluation": BadInput(
        "eval.py", WITH_WEIGHTS, "classes/val/a/0.png: is not a whole image", write("classes/val/a/0.png", "x")
    ),
    "image: too many pixels": predicted(
        "x.png", "could be decompression bomb", lambda f: Image.new("1", (20000, 20000)).save(f / "x.png")
    ),
    "image: a name with a line break": predicted("x\ny.png", "x\\ny.png: is not a whole", write("x\ny.png", "x")),
    "image: missing, a name with a line break": predicted("x\ny.png", "x\\ny.png: no such file", None),
    "folder: holds a pipe only": predicted(
        "pipes", "pipes: holds no images", lambda f: ((f / "pipes").mkdir(), os.mkfifo(f / "pipes/x.png"))
    ),
    "folder: a class with hidden images only": trained(
        CLASSIFICATION,
        "classes/train/c: holds no images",
        lambda f: ((f / "classes/train/c/.cache").mkdir(parents=True), (f / "classes/train/c/.cache/x.png").touch()),
        "network.num_classes=3",
    ),
    "folder: a class of folders with names of images": trained(
        CLASSIFICATION,
        "classes/train/c: holds no images",
        lambda f: (f / "classes/train/c/x.png").mkdir(parents=True),
        "network.num_classes=3",
    ),
    "folder: a class of links to nothing": trained(
        CLASSIFICATION,
        "classes/train/c: holds no images",
        lambda f: ((f / "classes/train/c").mkdir(), (f / "classes/train/c/x.png").symlink_to("nothing")),
        "network.num_classes=3",
    ),
    "folder: the dataset is a file": trained(
        CLASSIFICATION, f"{WEIGHTS}: no such folder", None, f"data.path={WEIGHTS}"
    ),
    "folder: a name too long": trained(CLASSIFICATION, "File name too long", None, f"data.path={'x' * 300}"),
    "labels: a superscript digit": listed("labels.txt: '²' is no class", "1\n²\n".encode()),
    "labels: too many digits": listed("is no class: neither a name nor an index from 0 to 1", b"1\n" + b"1" * 5000),
    "labels: too few": listed("labels.txt: has 1 labels for 2 images", b"1\n"),
    "labels: a negative number": listed("labels.txt: '-1' is no class", b"0\n-1\n"),
    "labels: no text": listed("labels.txt: cannot be read: not a text file", b"\xff\xff"),
    "labels: a folder": listed("classes: cannot be read: Is a directory", b"", "classes"),
    "mask: floating point": trained(
        SEGMENTATION, "0.png: is stored as floating point, a mask holds whole numbers", save(MASK, FLOATS)
    ),
    "mask: colours": trained(
        SEGMENTATION, "0.png: has 3 channels, a mask has one", save(MASK, np.zeros((48, 64, 3), "u1"))
    ),
    "mask: no class": trained(
        SEGMENTATION, "0.png: has the value 3, allowed are 0", save(MASK, np.full((48, 64), 3, "u1"))
    ),
    "mask: another size": trained(
        SEGMENTATION, "0.png: is of 8x8 pixels, its image of 64x48", save(MASK, np.ones((8, 8), "u1"))
    ),
    "mask: 255": trained(SEGMENTATION, "0.png: has the value 255", save(MASK, np.full((48, 64), 255, "u1"))),
    "mask: a pipe": trained(SEGMENTATION, "0.png has no mask, expected", replace(MASK, os.mkfifo)),
    "mask: broken": trained(SEGMENTATION, "0.png: is not a whole image", write(MASK, "x")),
    "annotations: no text": annotated("is not a text file", write(ANNOTATIONS, b"\xff\xff\x00{")),
    "annotations: bytes of nothing": annotated(":1: is not valid JSON", write(ANNOTATIONS, bytes(10_000_000))),
    "annotations: a link to itself": annotated(
        "Too many levels of symbolic links",
        replace(ANNOTATIONS, lambda path: path.symlink_to(path.name)),
    ),
    "annotations: empty": annotated(f"{ANNOTATIONS}:1: is not valid JSON", write(ANNOTATIONS, "")),
    "annotations: cut off": annotated(
        f"{ANNOTATIONS}:1: is not valid JSON", lambda f: os.truncate(f / ANNOTATIONS, 200)
    ),
    "annotations: a list": annotated("is not a COCO file: it holds no images", write(ANNOTATIONS, "[]")),
    "annotations: too many levels": annotated("in too many levels", write(ANNOTATIONS, "[" * 100_000)),
    "annotations: too many digits": annotated(
        "is not valid JSON: a number has too many digits", write(ANNOTATIONS, '{"images": [' + "1" * 5000 + "]}")
    ),
    "annotations: a pipe": annotated(f"{ANNOTATIONS}: is no file", replace(ANNOTATIONS, os.mkfifo)),
    "annotations: a folder": annotated(f"{ANNOTATIONS}: is a folder", replace(ANNOTATIONS, os.mkdir)),
    "annotations: a crowd in words": annotated(
        "annotations id 0: iscrowd 'text' is not one of 0, 1, false, true", set_entry("annotations", "iscrowd", "text")
    ),
    "annotations: a negative area": annotated("area -3 is not a number", set_entry("annotations", "area", -3)),
    "annotations: an area of inf": annotated("area inf is not", set_entry("annotations", "area", float("inf"))),
    "annotations: an area of nan": annotated("area nan is not", set_entry("annotations", "area", float("nan"))),
    "annotations: a box of nan": annotated(
        "is not left, top", set_entry("annotations", "bbox", [0, 0, float("nan"), 3])
    ),
    "annotations: a box of inf": annotated(
        "is not left, top", set_entry("annotations", "bbox", [0, 0, float("inf"), 3])
    ),
    "annotations: a box of 1e999": annotated(
        "id 0: bbox [10, inf, 20, 30] is not left, top", replace_text(BOX, '"bbox": [10, 1e999, 20, 30]')
    ),
    "annotations: a box of 400 digits": annotated(
        "is not left, top", set_entry("annotations", "bbox", [0, 0, 10**400, 3])
    ),
    "annotations: a box of three": annotated("is not left, top", set_entry("annotations", "bbox", [0, 0, 3])),
    "annotations: a box in words": annotated("is not left, top", set_entry("annotations", "bbox", ["0", 0, 3, 3])),
    "annotations: an id of 30 digits": annotated("is out of range", set_entry("images", "id", 10**30)),
    "annotations: an id of 7.0": annotated("id 7.0 is not a whole number", set_entry("images", "id", 7.0)),
    "annotations: an id of true": annotated("id True is not a whole number", set_entry("images", "id", True)),
    "annotations: an image of no pixels": annotated("has 0x40 pixels", set_entry("images", "width", 0)),
    "annotations: an image of too many pixels": annotated("pixels", set_entry("images", "width", 10**12)),
    "annotations: an image of -60 pixels": annotated("id 7 has -60x40 pixels", set_entry("images", "width", -60)),
    "annotations: a width of true": annotated("width True is not a whole number", set_entry("images", "width", True)),
    "annotations: an image twice": annotated("images id 3 is there twice", set_entry("images", "id", 3)),
    "annotations: a file twice": annotated(
        "file_name 'b.png' is there twice", set_entry("images", "file_name", "b.png")
    ),
    "annotations: an absolute path": annotated(
        "images id 7: file_name '/x/a.png' is not below", set_entry("images", "file_name", "/x/a.png")
    ),
    "annotations: a path to elsewhere": annotated(
        "file_name '../val2017/a.png' is not below", set_entry("images", "file_name", "../val2017/a.png")
    ),
    "annotations: a folder as an image": annotated("a.png: no such file", replace("coco/train2017/a.png", os.mkdir)),
    "annotations: a link to itself as an image": annotated(
        "a.png: no such file", replace("coco/train2017/a.png", lambda path: path.symlink_to("a.png"))
    ),
    "annotations: a broken image": trained(
        DETECTION, "a.png: is not a whole image", write("coco/train2017/a.png", "x"), "data.workers=1"
    ),
    "annotations: a name of 5,000 characters": annotated("no such file", set_entry("images", "file_name", "x" * 5000)),
    "annotations: a name with NUL": annotated("no such file", set_entry("images", "file_name", "x\0.png")),
    "annotations: a name with a line break": annotated(
        "x\\ny.png: no such file", set_entry("images", "file_name", "x\ny.png")
    ),
    "annotations: a category without a name": annotated("name: is an empty text", set_entry("categories", "name", "")),
    "annotations: half a character": annotated("name: ", set_entry("categories", "name", "\ud800")),
    "annotations: one name twice": annotated("the name 'cat' is there twice", set_entry("categories", "name", "cat")),
    "annotations: no boxes": annotated(
        "holds no boxes to train on", change(lambda content: content["annotations"].clear())
    ),
    "anchors: no file": BadInput(ANCHORS, ("x.json",), "x.json: No such file or directory"),
    "anchors: no boxes": clustered(
        ": the boxes have 0 different sizes", change(lambda content: content["annotations"].clear())
    ),
    "anchors: few boxes": clustered(": the boxes have 3 different sizes", None),
    "anchors: a box of nan": clustered(
        ": annotations id 0: bbox [0, 0, nan, 3] is not", set_entry("annotations", "bbox", [0, 0, float("nan"), 3])
    ),
    "anchors: a box of inf": clustered(
        ": annotations id 0: bbox [0, 0, inf, 3] is not", replace_text(BOX, '"bbox": [0, 0, 1e999, 3]')
    ),
    "anchors: a huge box": clustered(
        ": annotations id 0: bbox [0, 0, 1e+300, 3] is not", set_entry("annotations", "bbox", [0, 0, 1e300, 3])
    ),
    "anchors: a negative box": clustered(
        ": annotations id 0: bbox [0, 0, -3, 3] has a negative", set_entry("annotations", "bbox", [0, 0, -3, 3])
    ),
    "anchors: a crowd in words": clustered(
        ": annotations id 0: iscrowd 'text' is not one", set_entry("annotations", "iscrowd", "text")
    ),
    "anchors: a huge image": clustered(
        ": images id 7 has 1000000000000x40 pixels", set_entry("images", "width", 10**12)
    ),
    "anchors: too many levels": clustered(": is not valid JSON: lists and objects", write(ANNOTATIONS, "[" * 100_000)),
    "anchors: a folder": BadInput(ANCHORS, ("coco",), "coco: is a folder, annotations are needed"),
    "anchors: a device": BadInput(ANCHORS, ("/dev/zero",), "/dev/zero: is no file, annotations are needed"),
    "anchors: absurd size": BadInput(
        ANCHORS, ("x.json", "--image_size", str(10**9)), "--image_size 1000000000: must be"
    ),
    "anchors: size in words": BadInput(
        ANCHORS, ("x.json", "--image_size", "big"), "argument --image_size: invalid int"
    ),
}
