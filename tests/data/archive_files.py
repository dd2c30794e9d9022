"""Small archives like those of ImageNet, COCO and ADE20K, for tests to damage as they like."""

import io
import json
import tarfile
import zipfile

import numpy as np
from PIL import Image
from scipy.io import savemat

from src.classification.imagenet import load_classes

WNIDS = load_classes()[0][:3]
CLASS_SIZES = (4, 2, 3)
VAL_LABELS = (1, 0, 1, 2, 0)  # of the validation images in order, indices of `WNIDS`
KIT = "ILSVRC2012_devkit_t12/data"


def image_bytes(seed, size=(20, 16), kind="JPEG"):
    """A file of random pixels; of kind PNG a mask of the classes 0 to 150."""
    generator = np.random.default_rng(seed)
    shape, high = ((size[1], size[0]), 151) if kind == "PNG" else ((size[1], size[0], 3), 256)
    file = io.BytesIO()
    Image.fromarray(generator.integers(0, high, shape, np.uint8)).save(file, kind)
    return file.getvalue()


def tar_bytes(files, mode="w"):
    """A tar of {name: content}; content may be a `TarInfo` for what is no file."""
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode=mode) as tar:
        for name, content in files.items():
            entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return result.getvalue()


def train_files():
    """{wnid: {file name: content}} of the training images."""
    return {
        wnid: {f"{wnid}_{number}.JPEG": image_bytes((index, number)) for number in range(count)}
        for index, (wnid, count) in enumerate(zip(WNIDS, CLASS_SIZES))
    }


def val_files():
    """{file name: content} of the validation images."""
    return {f"ILSVRC2012_val_{n:08d}.JPEG": image_bytes((9, n)) for n in range(1, len(VAL_LABELS) + 1)}


def write_train(path, files=None):
    """Write a tar of tars of {wnid: {file name: content}}."""
    files = train_files() if files is None else files
    path.write_bytes(tar_bytes({f"{wnid}.tar": tar_bytes(images) for wnid, images in files.items()}))
    return path


def write_val(path, files=None):
    path.write_bytes(tar_bytes(val_files() if files is None else files))
    return path


def write_devkit(path):
    """The development kit, whose numbers of classes are not in the order of the WordNet ids."""
    order = (2, 0, 1)  # index in WNIDS of the classes 1, 2, 3
    synsets = np.array(
        [(number + 1, WNIDS[index]) for number, index in enumerate(order)],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object)],
    )
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets[:, None]})
    numbers = "".join(f"{order.index(label) + 1}\n" for label in VAL_LABELS).encode()
    files = {f"{KIT}/meta.mat": meta.getvalue(), f"{KIT}/ILSVRC2012_validation_ground_truth.txt": numbers}
    path.write_bytes(tar_bytes({"ILSVRC2012_devkit_t12/readme.txt": b"x", **files}, "w:gz"))
    return path


def write_zip(path, files, compression=zipfile.ZIP_STORED):
    """Write a zip of {name or `ZipInfo`: content}."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def coco_content(split):
    """The annotations of three images, with one of each kind that is counted."""
    boxes = ([2, 2, 10, 8], [1, 1, 18, 14], [5.5, 5, 1.03, 0.0], [10, 5, 20, 5])
    annotations = [
        {"id": n, "image_id": 1 + n // 3, "category_id": 5 + n % 2, "bbox": box, "area": 8, "iscrowd": int(n == 1)}
        for n, box in enumerate(boxes)
    ]
    images = [{"id": n, "file_name": f"{split}{n}.jpg", "width": 20, "height": 16} for n in (1, 2, 3)]
    categories = [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_images(split):
    folder = {f"{split}2017/": b""}
    return {**folder, **{f"{split}2017/{split}{n}.jpg": image_bytes((split == "val", n)) for n in (1, 2, 3)}}


def write_coco(folder, **changed):
    """Write train2017.zip, val2017.zip, annotations.zip; returns the flags that name them.

    Args:
        folder: where.
        changed: annotations of 'train' or 'val'.
    """
    for split in ("train", "val"):
        write_zip(folder / f"{split}2017.zip", coco_images(split))
    content = {
        f"annotations/instances_{split}2017.json": json.dumps(changed.get(split, coco_content(split)))
        for split in ("train", "val")
    }
    content["annotations/captions_val2017.json"] = "{}"
    write_zip(folder / "annotations.zip", content, zipfile.ZIP_DEFLATED)
    return [
        f"--{name}={folder / file}.zip"
        for name, file in (("train", "train2017"), ("val", "val2017"), ("annotations", "annotations"))
    ]


def ade_files():
    """{name in the archive: content} of three and two images with masks."""
    files = {"ADEChallengeData2016/objectInfo150.txt": b"x", "ADEChallengeData2016/images/": b""}
    for split, count in (("training", 3), ("validation", 2)):
        for number in range(count):
            name = f"{split}/ADE_{split[:5]}_{number:08d}"
            files[f"ADEChallengeData2016/images/{name}.jpg"] = image_bytes((count, number))
            files[f"ADEChallengeData2016/annotations/{name}.png"] = image_bytes((count, number), kind="PNG")
    return files


def read_tree(folder):
    """{relative path: content} of all files below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
