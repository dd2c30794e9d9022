"""YAML files and settings."""

import os

from bad_input.case import CLASSIFICATION, DETECTION, SEGMENTATION, WEIGHTS, BadInput

CONFIG = ("--config", "x.yaml")
LAUGHTER = "a: &a [1]\n" + "".join(f"{new}: &{new} [{f'*{old}, ' * 9}]\n" for old, new in zip("abcdefgh", "bcdefghi"))
GIGABYTE = 10**9
ANCHORS = "[[[.inf, 1], [1, 1], [1, 1]], [[1, 1], [1, 1], [1, 1]], [[1, 1], [1, 1], [1, 1]]]"


def write(name, content):
    """Prepare a file with a text, or with bytes."""
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def make_pipe(folder):
    os.mkfifo(folder / "x.yaml")


def make_loop(folder):
    (folder / "x.yaml").symlink_to("x.yaml")


def make_large(folder):
    with open(folder / "x.yaml", "wb") as file:
        file.truncate(GIGABYTE)


def make_circle(folder):
    (folder / "x.yaml").write_text("train: {epochs: 1}\nbase: y.yaml\n")
    (folder / "y.yaml").write_text("base: x.yaml\n")


def files(cases):
    """Cases of train.py with a configuration of {name: (content, message)}."""
    return {
        f"YAML: {name}": BadInput("train.py", CONFIG, message, write("x.yaml", content))
        for name, (content, message) in cases.items()
    }


def places(cases):
    """Cases of train.py with a configuration that {name: (function that prepares it, message)}."""
    return {
        f"file: {name}": BadInput("train.py", CONFIG, message, prepare) for name, (prepare, message) in cases.items()
    }


def settings(config, *cases):
    """Cases of train.py with (settings of the command line, separated by blanks, message)."""
    return {
        f"{config}: {text[:80]}": BadInput("train.py", ("--config", config, *text.split(" ")), message)
        for text, message in cases
    }


def scripts(name, config, arguments, message, prepare=None):
    """The same mistake in each of the other commands."""
    weights = ("--checkpoint_path", WEIGHTS)
    others = {
        "eval.py": weights,
        "export.py": (*weights, "--file_name", "exported"),
        "scripts/predict.py": ("classes/val", *weights),
        "scripts/show_batch.py": (),
    }
    return {
        f"{name} in {script}": BadInput(script, ("--config", config, *others[script], *arguments), message, prepare)
        for script in others
    }


CASES = {
    **files(
        {
            "an impossible date": (
                "train: {epochs: 2026-02-31}",
                "x.yaml:1: train.epochs: '2026-02-31' is not a whole",
            ),
            "a date is a text": ("data: {path: 2026-02-28}", "2026-02-28: no such folder"),
            "int of letters": ("train:\n  epochs: !!int abc", "x.yaml:2: 'abc' is not a valid !!int"),
            "int of nothing": ("train: {epochs: !!int ''}", "x.yaml:1: '' is not a valid !!int"),
            "int of a prefix": ("train: {epochs: 0x_}", "x.yaml:1: '0x_' is not a valid !!int"),
            "int of a list": ("train: {epochs: !!int [1]}", "x.yaml:1: the tag !!int is not one of"),
            "float of letters": ("train: {epochs: !!float x}", "x.yaml:1: 'x' is not a valid !!float"),
            "bool of letters": ("runtime: {graph_mode: !!bool x}", "x.yaml:1: 'x' is not a valid !!bool"),
            "400 digits": (f"train: {{epochs: {'9' * 400}}}", "x.yaml:1: a number of 400 characters, at most 100"),
            "400 digits, no int": (f"schedule: {{power: {'9' * 400}}}", "x.yaml:1: a number of 400 characters"),
            "5000 digits": (f"train: {{epochs: {'9' * 5000}}}", "x.yaml:1: a number of 5000 characters"),
            "5000 digits, hexadecimal": (f"train: {{epochs: 0x{'f' * 5000}}}", "x.yaml:1: a number of 5002 characters"),
            "5000 sixties": (f"train: {{epochs: 1{':59' * 5000}.0}}", "x.yaml:1: a number of 15003 characters"),
            "above float": ("schedule: {power: 1e400}", "x.yaml:1: schedule.power: inf is not a finite number"),
            "list in itself": ("train: 1\na: &a [*a]", "x.yaml:2: the alias *a is not allowed"),
            "mapping in itself": ("a: &a {b: *a}", "x.yaml:1: the alias *a is not allowed"),
            "billion laughs": (LAUGHTER, "x.yaml:2: the alias *a is not allowed"),
            "alias of a number": ("train: {epochs: &a 1, log_every: *a}", "x.yaml:1: the alias *a is not allowed"),
            "unknown alias": ("train: {epochs: *a}", "x.yaml:1: the alias *a is not allowed, only the value itself"),
            "10000 lists": ("data:\n  path: " + "[" * 10_000, "x.yaml:2: lists and mappings have more than 20 levels"),
            "10000 keys": ("? " * 10_000, "x.yaml:1: lists and mappings have more than 20 levels"),
            "NUL": ("train: {}\ndata: {path: a\0b}", "x.yaml:2: not valid YAML: has the character '\\x00'"),
            "NUL, escaped": (
                'data: {path: "a\\0b"}',
                "x.yaml:1: data.path: 'a\\x00b' has a character that no file name",
            ),
            "half a character": ('data: {path: "\\ud800"}', "x.yaml:1: data.path: '\\ud800' has a character that no"),
            "task of a list": ("task: [classification]", "x.yaml:1: task: ['classification'] is not one of"),
            "task of a mapping": ("task: {detection: 1}", "x.yaml:1: task: {'detection': 1} is not one of"),
            "task of nothing": ("task:", "x.yaml:1: task: None is not one of"),
            "object": (
                "data: !!python/object:os.system {}",
                "x.yaml:1: the tag !!python/object:os.system is not one of",
            ),
            "call": (
                "data: {path: !!python/object/apply:os.getcwd []}",
                "x.yaml:1: the tag !!python/object/apply:os.getcwd is not one of",
            ),
            "bytes": ("data: {path: !!binary aGVsbG8=}", "x.yaml:1: the tag !!binary is not one of plain values"),
            "set": ("data: {class_names: !!set {a, b}}", "x.yaml:1: the tag !!set is not one of"),
            "timestamp": ("data: {path: !!timestamp 2026-01-01}", "x.yaml:1: the tag !!timestamp is not one of"),
            "own tag": ("data: {path: !path x}", "x.yaml:1: the tag !path is not one of"),
            "merge key": ("train:\n  <<: {epochs: 1}", "x.yaml:2: unknown key 'train.<<'"),
            "merge key and alias": ("a: &a {epochs: 1}\ntrain: {<<: *a}", "x.yaml:2: the alias *a is not allowed"),
            "number as a key": ("train: {1: 2}", "x.yaml:1: unknown key 'train.1'"),
            "list as a key": ("train:\n  ? [a]\n  : 1", "x.yaml:2: a key is a list or mapping"),
            "two documents": ("train: {}\n---\ntrain: {}", "x.yaml:2: not valid YAML: expected a single document"),
            "repeated key in a list": ("data: {class_names: [{a: 1, a: 2}]}", "x.yaml:1: a: is given twice"),
            "tabulator": ("train:\n\tepochs: 1", "x.yaml:2: not valid YAML: while scanning for the next token, found"),
            "bytes that are no text": (b"\xff\xfe", "x.yaml: not a text file"),
            "base: folder": ("train: {}\nbase: classes", "x.yaml:2: base: classes: is not a file"),
            "base: missing": ("train: {}\nbase: y.yaml", "x.yaml:2: base: y.yaml: No such file or directory"),
            "base: itself": ("base: x.yaml", "x.yaml:1: base: x.yaml is its own base"),
            "base: list": ("base: [x.yaml]", "x.yaml:1: base: is not a file name"),
            "base: nothing": ("base:", "x.yaml:1: base: is not a file name"),
            "base: NUL": ('base: "a\\0b"', "x.yaml:1: base: a\\x00b: not a text file"),
            "base: device": ("base: /dev/zero", "x.yaml:1: base: /dev/zero: is not a file"),
            "base: long name": (f"base: {'a' * 300}", "File name too long"),
            "line of the second key": (
                "schedule:\n  warmup_epochs: 1\n  warmup_steps: 3",
                "x.yaml:3: schedule.warmup_steps: and warmup_epochs cannot both be set",
            ),
            "line of the other section": (
                "task: segmentation\ndata:\n  path: ade\n  class_names: [a]",
                "x.yaml:4: data.class_names: has 1 names, network.num_classes is 150",
            ),
            "line of the memory": (
                "train:\n  epochs: 1\n  batch_size: 65536\ndata: {image_size: 4096, eval_resize: 4096}",
                "x.yaml:3: train.batch_size: images of 65536 x 3 x 4096 x 4096 float32 take 13194.1 GB, this ",
            ),
        }
    ),
    **places(
        {
            "folder": (lambda folder: (folder / "x.yaml").mkdir(), "x.yaml: is not a file"),
            "pipe": (make_pipe, "x.yaml: is not a file"),
            "link to itself": (make_loop, "x.yaml: Too many levels of symbolic links"),
            "gigabyte": (make_large, "x.yaml: has 1000000000 bytes, settings have at most 8388608"),
            "base of its base": (make_circle, "y.yaml:1: base: x.yaml is its own base"),
            "missing": (None, "x.yaml: No such file or directory"),
        }
    ),
    **settings(
        CLASSIFICATION,
        ("data.path=" + "[" * 10_000, "command line: data.path: lists and mappings have more than 20 levels"),
        ("train" + ".x" * 5000 + "=1", "' is not of the form section.key=value"),
        ("data.path=a\0b", "command line: data.path: not valid YAML: has the character '\\x00'"),
        ("train.epochs=2026-02-31", "command line: train.epochs: '2026-02-31' is not a whole number"),
        ("train.epochs=" + "9" * 5000, "command line: train.epochs: a number of 5000 characters"),
        ("data.path=!!binary", "command line: data.path: the tag !!binary is not one of"),
        ("train=&a\n{a:\n*a}", "command line: train: the alias *a is not allowed"),
        ("data.class_names=&a\n[*a]", "command line: data.class_names: the alias *a is not allowed"),
        ("task=[a]", "command line: task: ['a'] is not one of"),
        ("train.epochs=1\n---\n2", "command line: train.epochs: not valid YAML: expected a single document"),
        ("schedule.learning_rate=.inf", "schedule.learning_rate: inf is not a finite number"),
        ("schedule.learning_rate=-.inf", "schedule.learning_rate: -inf is not a finite number"),
        ("schedule.learning_rate=nan", "schedule.learning_rate: nan is not a finite number"),
        ("schedule.learning_rate=1e31", "schedule.learning_rate: 1e+31 is out of range"),
        ("schedule.warmup_epochs=.inf", "schedule.warmup_epochs: inf is not a finite number"),
        ("schedule.warmup_learning_rate=.inf", "schedule.warmup_learning_rate: inf is not a finite number"),
        ("schedule.power=.inf", "schedule.power: inf is not a finite number"),
        ("schedule.milestones=[1,.inf]", "schedule.milestones: inf is not a finite number"),
        ("schedule.milestones=[" + "1," * 101 + "]", "schedule.milestones: has 101 items, at most 100 are allowed"),
        ("optimizer.weight_decay=.inf", "optimizer.weight_decay: inf is not a finite number"),
        ("optimizer.clip_norm=.inf", "optimizer.clip_norm: inf is not a finite number"),
        ("optimizer.momentum=1", "optimizer.momentum: 1.0 is out of range: at least 0.0 and at most 0.999999"),
        ("optimizer.rho=1", "optimizer.rho: 1.0 is out of range"),
        ("optimizer.betas=[0.9,1]", "optimizer.betas: 1.0 is out of range"),
        ("optimizer.epsilon=0", "optimizer.epsilon: 0.0 is out of range: at least 1e-16"),
        ("precision.loss_scale=.inf", "precision.loss_scale: inf is not a finite number"),
        ("augment.crop_ratio=[1,.inf]", "augment.crop_ratio: inf is not a finite number"),
        ("train.epochs=1000000000", "train.epochs: 1000000000 is out of range: at least 1 and at most 100000"),
        ("train.batch_size=1000000000", "train.batch_size: 1000000000 is out of range: at least 1 and at most 65536"),
        ("train.accumulation_steps=1000000000", "train.accumulation_steps: 1000000000 is out of range"),
        ("evaluation.batch_size=1000000000", "evaluation.batch_size: 1000000000 is out of range"),
        ("data.image_size=1000000", "data.image_size: 1000000 is out of range: at least 33 and at most 4096"),
        ("data.eval_resize=1000000", "data.eval_resize: 1000000 is out of range: at least 1 and at most 16384"),
        ("data.workers=1000000", "data.workers: 1000000 is out of range: at least 1 and at most 1024"),
        ("data.worker_processes=1", "data.worker_processes: 1 is not one of auto, True, False"),
        ("data.worker_processes=atuo", "data.worker_processes: 'atuo' is not one of auto, True, False (did you"),
        ("data.worker_processes=null", "data.worker_processes: None is not one of auto, True, False"),
        ("data.worker_processes=[auto]", "data.worker_processes: ['auto'] is not one of auto, True, False"),
        ("network.num_classes=1000001", "network.num_classes: 1000001 is out of range: at least 1 and at most 1000000"),
        ("network.dfc_kernel_size=100001", "network.dfc_kernel_size: 100001 is out of range"),
        ("network.dfc_blocks=[" + "1," * 17 + "]", "network.dfc_blocks: has 17 items, at most 16 are allowed"),
        ("network.name=mobilenetv2_dfc_1x network.dfc_blocks=[17]", "network.dfc_blocks: 17 is out of range"),
        (
            "evaluation.batch_size=65536 data.image_size=224 data.eval_resize=224",
            "evaluation.batch_size: images of 65536 x 3 x 224 x 224 float32 take 39.5 GB",
        ),
        ("schedule.cooldown_epochs=1000000000", "schedule.cooldown_epochs: 1000000000 is out of range"),
        ("schedule.cooldown_epochs=10", "schedule.cooldown_epochs: 10 has no effect on constant, only on cosine"),
        ("schedule.noise=[0.9,0.1]", "schedule.noise: [0.9, 0.1] is not in rising order"),
        (
            "schedule.name=cosine schedule.min_learning_rate=1",
            "schedule.min_learning_rate: 1.0 is above learning_rate 0.002",
        ),
        (
            "schedule.name=polynomial schedule.min_learning_rate=1",
            "schedule.min_learning_rate: 1.0 is above learning_rate 0.002",
        ),
        ("schedule.warmup_epochs=3", "schedule.warmup_epochs: 3.0 is more than train.epochs 2"),
        ("schedule.warmup_steps=7", "schedule.warmup_steps: 7 is more than the 6 updates of train.epochs 2"),
    ),
    **settings(
        DETECTION,
        ("data.max_boxes=1000000", "data.max_boxes: 1000000 is out of range: at least 1 and at most 10000"),
        ("data.repeat=1000000", "data.repeat: 1000000 is out of range: at least 1 and at most 1000"),
        ("data.image_size=1000000", "data.image_size: 1000000 is out of range"),
        ("network.channels=1000000", "network.channels: 1000000 is out of range"),
        ("network.num_classes=1000000", "network.num_classes: 1000000 is out of range"),
        ("network.anchors=" + ANCHORS.replace(" ", ""), "network.anchors: inf is not a finite number"),
        ("augment.contrast=[0,.inf]", "augment.contrast: inf is not a finite number"),
        ("augment.expand_ratio=[1,.inf]", "augment.expand_ratio: inf is not a finite number"),
        ("augment.hue=.nan", "augment.hue: nan is not a finite number"),
        ("augment.crop_min_ious=[" + "0," * 101 + "]", "augment.crop_min_ious: has 101 items, at most 100 are allowed"),
        ("inference.candidates=1000000000", "inference.candidates: 1000000000 is out of range"),
        ("loss.summed_images=1000000000", "loss.summed_images: 1000000000 is out of range"),
        (
            "data.max_boxes=10000 data.image_size=4096 train.batch_size=64",
            "data.max_boxes: overlaps with anchors of 64 x 10000 x 1032192 float32 take 2642.4 GB",
        ),
        (
            "data.image_size=4096 evaluation.batch_size=65536",
            "evaluation.batch_size: images of 65536 x 3 x 4096 x 4096 float32 take 13194.1 GB",
        ),
        (
            "network.num_classes=13000 data.image_size=1024 train.batch_size=1024",
            "train.batch_size: predictions of 1024 x 64512 x 13005 float32 take 3436.5 GB",
        ),
        ("schedule.warmup_steps=300", "schedule.warmup_steps: 300 is more than the 2 updates of train.epochs 2"),
    ),
    **settings(
        SEGMENTATION,
        ("data.crop_size=[1000000,64]", "data.crop_size: 1000000 is out of range"),
        ("data.base_size=[1000000,64]", "data.base_size: 1000000 is out of range: at least 33 and at most 16384"),
        ("data.image_size=[64,1000000]", "data.image_size: 1000000 is out of range"),
        ("augment.ratio=[0.5,.inf]", "augment.ratio: inf is not a finite number"),
        ("augment.ratio=[0.5,1000000]", "augment.ratio: 1000000.0 is out of range"),
        ("evaluation.scales=[.inf]", "evaluation.scales: inf is not a finite number"),
        ("evaluation.scales=[" + "1," * 101 + "]", "evaluation.scales: has 101 items, at most 100 are allowed"),
        ("evaluation.size_multiple=1000000", "evaluation.size_multiple: 1000000 is out of range"),
        ("network.aspp_channels=1000000", "network.aspp_channels: 1000000 is out of range"),
        ("network.aspp_dilations=[1000000]", "network.aspp_dilations: 1000000 is out of range"),
        ("network.auxiliary_channels=1000000", "network.auxiliary_channels: 1000000 is out of range"),
        ("loss.auxiliary_weight=.inf", "loss.auxiliary_weight: inf is not a finite number"),
        (
            "data.crop_size=[4096,2048] train.batch_size=65536",
            "train.batch_size: images of 65536 x 3 x 4096 x 2048 float32 take 6597.1 GB",
        ),
        (
            "network.num_classes=255 data.crop_size=[4096,4096] train.batch_size=100",
            "train.batch_size: logits of 100 x 255 x 4096 x 4096 float32 take 1711.3 GB",
        ),
        (
            "data.base_size=[16384,16384] augment.ratio=[1,10]",
            "augment.ratio: resized images of 1 x 3 x 163840 x 163840 float32 take 322.1 GB",
        ),
        (
            "data.base_size=[16384,16384] evaluation.scales=[1,10]",
            "evaluation.scales: resized images of 1 x 3 x 163840 x 163840 float32 take 322.1 GB",
        ),
        ("schedule.warmup_epochs=2.5", "schedule.warmup_epochs: 2.5 is more than train.epochs 2"),
    ),
    **scripts("infinite rate", CLASSIFICATION, ("schedule.learning_rate=.inf",), "learning_rate: inf is not a finite"),
    **scripts("alias", "x.yaml", (), "x.yaml:1: the alias *a is not allowed", write("x.yaml", "a: &a [*a]")),
    **scripts("pipe", "x.yaml", (), "x.yaml: is not a file", make_pipe),
    **scripts(
        "memory", SEGMENTATION, ("train.batch_size=65536", "data.crop_size=[4096,4096]"), "train.batch_size: images"
    ),
    "flag: number of classes": BadInput(
        "train.py",
        ("--config", CLASSIFICATION, "--num_classes", "1000000000"),
        "--num_classes: network.num_classes: 1000000000 is out of range",
    ),
    "flag: NUL": BadInput(
        "train.py",
        ("--config", CLASSIFICATION, "--data_url", "a\0b"),
        "--data_url: data.path: 'a\\x00b' has a character",
    ),
}
