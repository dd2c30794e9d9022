"""Settings that have no effect beside others: each is warned of where it was given, the shipped configurations not."""

import pytest
from helpers import PROJECT

from src.config import load_config, parse_override
from src.tasks import SCHEMAS

# {task: {setting and a value other than its default: (settings that take its effect, what the line ends in,
#                                                       settings beside which it has one)}}
CASES = {
    "classification": {
        "runtime.jit_level=O1": ("runtime.graph_mode=false", "runtime.graph_mode=false", ""),
        "runtime.reduced_float32=true": (
            "runtime.device_target=CPU",
            "runtime.device_target=CPU",
            "runtime.device_target=GPU",
        ),
        "optimizer.momentum=0.5": ("optimizer.name=adamw", "optimizer.name=adamw", "optimizer.name=rmsprop"),
        "optimizer.rho=0.5": ("optimizer.name=sgd", "optimizer.name=sgd", "optimizer.name=rmsprop"),
        "optimizer.betas=[0.5, 0.9]": ("optimizer.name=sgd", "optimizer.name=sgd", "optimizer.name=adamw"),
        "optimizer.epsilon=0.1": ("optimizer.name=sgd", "optimizer.name=sgd", "optimizer.name=adamw"),
        "optimizer.decay_all=true": ("optimizer.weight_decay=0", "optimizer.weight_decay=0.0", ""),
        "optimizer.backbone_rate=0.5": ("train.freeze=backbone", "train.freeze=backbone", "train.freeze=2"),
        "optimizer.layer_decay=0.5": ("train.freeze=backbone", "train.freeze=backbone", "train.freeze=stem"),
        "schedule.unit=epoch": (
            "schedule.name=constant",
            "schedule.name=constant and schedule.warmup_epochs=0.0 and schedule.warmup_steps=0 and schedule.noise=null",
            "schedule.name=constant schedule.noise=[0,1]",
        ),
        "schedule.min_learning_rate=0.01": ("schedule.name=constant", "schedule.name=constant", ""),
        "schedule.warmup_learning_rate=0.01": (
            "",
            "schedule.warmup_epochs=0.0 and schedule.warmup_steps=0",
            "schedule.warmup_steps=9",
        ),
        "schedule.decay_epochs=3": ("", "schedule.name=cosine", "schedule.name=step"),
        "schedule.decay_rate=0.5": ("", "schedule.name=cosine", "schedule.name=multistep"),
        "schedule.milestones=[2, 3]": ("schedule.name=step", "schedule.name=step", "schedule.name=multistep"),
        "schedule.power=2": ("", "schedule.name=cosine", "schedule.name=polynomial"),
        "precision.loss_scale=8": (
            "precision.amp=bf16",
            "precision.loss_scaling=auto and precision.amp=bf16",
            "precision.amp=O2",
        ),
        "data.class_names=[a, b]": ("data.class_index=imagenet", "data.class_index=imagenet", ""),
        "augment.erase_mode=rand": ("", "augment.erase_probability=0.0", "augment.erase_probability=0.1"),
        "augment.cutmix=1": ("augment.cutmix_minmax=[0.2,0.8]", "augment.cutmix_minmax=[0.2, 0.8]", ""),
        "augment.mixup_probability=0.5": (
            "",
            "augment.mixup=0.0 and augment.cutmix=0.0 and augment.cutmix_minmax=null",
            "augment.cutmix_minmax=[0.2,0.8]",
        ),
        "augment.mixup_switch_probability=0.1": (
            "augment.mixup=1",
            "augment.cutmix=0.0 and augment.cutmix_minmax=null",
            "augment.mixup=1 augment.cutmix=1",
        ),
        "augment.mixup_off_epoch=3": (
            "",
            "augment.mixup=0.0 and augment.cutmix=0.0 and augment.cutmix_minmax=null",
            "augment.mixup=1",
        ),
        "loss.teacher=a.ckpt": ("loss.teacher_weight=0", "loss.teacher_weight=0.0", ""),
        "loss.teacher_weight=0.3": ("", "loss.teacher=null", "loss.teacher=a.ckpt"),
        "loss.temperature=2": (
            "loss.teacher_weight=0 loss.teacher=a.ckpt",
            "loss.teacher_weight=0.0",
            "loss.teacher=a.ckpt",
        ),
    },
    "detection": {
        "augment.expand_ratio=[1, 3]": ("augment.expand_probability=0", "augment.expand_probability=0.0", ""),
        "augment.crop_min_size=0.5": ("augment.crop_min_ious=[]", "augment.crop_min_ious=[]", ""),
    },
    "segmentation": {},
}
CHECKED = [(task, given, *case) for task, cases in CASES.items() for given, case in cases.items()]


@pytest.fixture
def read(tmp_path):
    """A function from the text of a file and settings of the command line to the lines of warnings."""

    def read_file(text, *overrides, name="config.yaml"):
        (tmp_path / name).write_text(text)
        warnings = []
        load_config(tmp_path / name, SCHEMAS, [parse_override(item) for item in overrides], warnings=warnings)
        return warnings

    return read_file


def test_all_of_the_tables_are_among_the_cases():
    common = {given.partition("=")[0] for given in CASES["classification"]} & SCHEMAS["segmentation"].needs.keys()
    for task, cases in CASES.items():
        assert common | {given.partition("=")[0] for given in cases} == SCHEMAS[task].needs.keys()


@pytest.mark.parametrize(("task", "given", "off", "reason", "on"), CHECKED, ids=[case[1] for case in CHECKED])
def test_each_warns_without_what_it_needs(read, task, given, off, reason, on):
    line, *others = reversed(read(f"task: {task}", given, *off.split()))
    assert line == f"warning: {given.partition('=')[0]} has no effect with {reason}"
    assert others in ([], ["warning: loss.teacher has no effect with loss.teacher_weight=0.0"])
    assert read(f"task: {task}", given, *on.split()) == []


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").glob("[!a]*/*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_are_silent(path):
    warnings = []
    load_config(path, SCHEMAS, (), warnings=warnings)
    assert warnings == []


def test_only_what_was_given_is_warned_of(read):
    default = "optimizer: {name: adamw, momentum: 0.9}"
    assert read(default) == []
    assert read(default, "optimizer.momentum=0.9") == [LINE]


LINE = "warning: optimizer.momentum has no effect with optimizer.name=adamw"
SGD = "optimizer: {name: sgd, momentum: 0.5}"


def test_a_later_layer_may_leave_what_an_earlier_one_says(read):
    """A base may say more than is left for it to say; what is given on top of that should have an effect."""
    base = "base: base.yaml\n"
    assert read(SGD, name="base.yaml") == read(SGD, "optimizer.name=adamw") == []
    assert read(f"{base}optimizer: {{name: adamw}}") == []
    assert read(f"{base}optimizer: {{name: adamw, momentum: 0.5}}") == [LINE]
    assert read(f"{base}optimizer: {{name: adamw}}", "optimizer.momentum=0.5") == [LINE]
    assert read(SGD.replace("sgd", "adamw"), name="base.yaml") == read(base) == [LINE]
    assert read(base, "optimizer.name=adamw") == []
