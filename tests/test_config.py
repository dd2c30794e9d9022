"""Settings: inheritance, overrides, round trip, and one clear line for every mistake."""

import dataclasses
from typing import get_args, get_type_hints

import pytest
from helpers import PROJECT

from src.classification.settings import ClassificationConfig
from src.config import check_same_settings, dump_config, load_config, parse_override
from src.errors import UserError
from src.networks import NETWORKS
from src.settings import BackboneSettings, ScheduleSettings
from src.tasks import SCHEMAS
from src.training.schedule import SCHEDULES


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="config.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


def load(path, *overrides):
    return load_config(path, SCHEMAS, [parse_override(text) for text in overrides])


def test_defaults_bases_and_overrides(write):
    write("network: {num_classes: 7, dropout: 0.5}\ntrain:\n  epochs: 3\n", "bases/first.yaml")
    write("base: bases/first.yaml\ntrain:\n  batch_size: 5\n", "second.yaml")
    path = write("base: second.yaml\nnetwork:\n  dropout: 1e-1\nschedule: {learning_rate: 1}\n")
    config = load(path, "train.epochs=9", "data.class_names=[a, b]", "runtime.device_target=CPU")
    assert (config.network.num_classes, config.network.dropout) == (7, 0.1)
    assert (config.train.epochs, config.train.batch_size) == (9, 5)
    assert config.schedule.learning_rate == 1.0 and isinstance(config.schedule.learning_rate, float)
    assert config.data.class_names == ("a", "b")
    assert config.runtime.device_target == "CPU"
    assert config.optimizer == ClassificationConfig().optimizer


def test_empty_file_is_all_defaults(write):
    assert load(write("")) == ClassificationConfig()


def test_settings_are_frozen(write):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(write("")).train.epochs = 3


def test_round_trip(write):
    names = "0 yes null é 2026-02-28 2026-02-31 2026-02-28T12:00:00Z 1e3 1_000 0x1f 017 12:30 .inf ~ << = *a &a !!int"
    names = (*names.split(), "a: b", " a", "a ", "a\nb", "a\tb", "😀", "\udcff", *"\r\x7f\x85\u2028\u2029\ufeff#-?[%@")
    config = load(write("network: {dfc_blocks: [2, 3]}\nschedule: {learning_rate: 1e-7, noise: [0, 1]}\n"))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, path="2026-02-28", class_names=names))
    assert load(write(dump_config(config))) == config


def test_plain_values_can_have_their_tags(write):
    text = "data: {path: !!str 3}\ntrain: !!map {epochs: !!int 2}\n"
    config = load(write(text), "network.dfc_blocks=!!seq [1, 2]", "train.batch_size=0x10")
    assert config.data.path == "3"
    assert (config.train.epochs, config.network.dfc_blocks, config.train.batch_size) == (2, (1, 2), 16)


def test_an_empty_base_is_one_of_defaults(write):
    write("# nothing\n", "first.yaml")
    assert load(write("base: first.yaml\ntrain: {epochs: 2}")).train.epochs == 2


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").rglob("*.yaml")), ids=lambda path: path.name)
def test_every_config_loads_and_has_a_header(path):
    assert path.parent.name == "ablations" or load(path)  # those are lists of settings, see tests/test_ablation.py
    text = path.read_text()
    assert text.startswith("# ") and "python " in text and "Hardware" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimzer: {name: sgd}", "config.yaml:1: unknown key 'optimzer' (did you mean 'optimizer'?)"),
        ("train:\n  epocs: 3", "config.yaml:2: unknown key 'train.epocs' (did you mean 'epochs'?)"),
        ("data:\n  zzz: 3", "config.yaml:2: unknown key 'data.zzz'; allowed: class_names, mean,"),
        ("train:\n  epochs: many", "config.yaml:2: train.epochs: 'many' is not a whole number"),
        ("train:\n  epochs: 2.5", "config.yaml:2: train.epochs: 2.5 is not a whole number"),
        ("train:\n  epochs: true", "config.yaml:2: train.epochs: True is not a whole number"),
        ("train:\n  epochs: 0", "config.yaml:2: train.epochs: 0 is out of range: at least 1"),
        ("train:\n  epochs:", "config.yaml:2: train.epochs: None is not a whole number"),
        ("network: {dropout: .nan}", "config.yaml:1: network.dropout: nan is not a finite number"),
        ("runtime: {graph_mode: 1}", "config.yaml:1: runtime.graph_mode: 1 is not true or false"),
        (
            "optimizer:\n  name: adamv",
            "config.yaml:2: optimizer.name: 'adamv' is not one of adamw, rmsprop, sgd (did you mean",
        ),
        ("runtime: {device_target: gpu}", "config.yaml:1: runtime.device_target: 'gpu' is not one of Ascend, GPU, CPU"),
        ("network: {name: ghostnetv2_1_3}", "(did you mean 'ghostnetv2_1_3x'?)"),
        ("data: {mean: [0.5, 0.5]}", "config.yaml:1: data.mean: [0.5, 0.5] has 2 items, needs 3"),
        ("data: {mean: 0.5}", "config.yaml:1: data.mean: 0.5 is not a list"),
        ("data: {image_size: 32}", "config.yaml:1: data.image_size: 32 is out of range: at least 33"),
        ("data: {image_size: 300}", "config.yaml:1: data.eval_resize: 256 is smaller than image_size 300"),
        ("augment: {crop_scale: [1, 0.5]}", "config.yaml:1: augment.crop_scale: [1.0, 0.5] is not in rising order"),
        ("train: 3", "config.yaml:1: train: is a section, it needs keys, not 3"),
        (
            "runtime: {device_target: {a: 1}}",
            "runtime.device_target: {'a': 1} is not one of Ascend, GPU",
        ),
        ("train: {epochs: [{a: 1}]}", "config.yaml:1: train.epochs: [{'a': 1}] is not a whole number"),
        ("task: clasification", "config.yaml:1: task: 'clasification' is not one of"),
        ("train: {epochs: 1}\ntrain: {epochs: 2}", "config.yaml:2: train: is given twice"),
        ("train: [", "config.yaml:1: not valid YAML"),
        ("- 1", "config.yaml: holds no mapping of settings"),
        ("base: missing.yaml", "missing.yaml: No such file or directory"),
        ("base: config.yaml", "is its own base"),
    ],
)
def test_mistakes_in_a_file(write, text, message):
    with pytest.raises(UserError) as error:
        load(write(text))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "command line: 'epochs' is not of the form section.key=value"),
        ("train.epochs=x", "command line: train.epochs: 'x' is not a whole number"),
        ("train.epoch=3", "command line: unknown key 'train.epoch' (did you mean 'epochs'?)"),
        ("trian.epochs=3", "command line: unknown key 'trian' (did you mean 'train'?)"),
        ("train=3", "command line: train: is a section"),
        ("train.epochs.more=3", "command line: train.epochs: {'more': 3} is not a whole number"),
        ("train.epochs=[", "command line: train.epochs: not valid YAML: while parsing a flow node, expected"),
    ],
)
def test_mistakes_on_the_command_line(write, override, message):
    with pytest.raises(UserError) as error:
        load(write("train: {epochs: 1}"), override)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_error_in_a_base_names_the_base(write):
    write("train:\n  epochs: -1\n", "first.yaml")
    with pytest.raises(UserError, match=r"first\.yaml:2: train\.epochs"):
        load(write("base: first.yaml"))


def test_what_a_resumed_run_may_change(write):
    before = load(write("train: {epochs: 3}"))
    now = load(
        write("train: {epochs: 4, log_every: 7}\ndata: {path: elsewhere, workers: 1}\nevaluation: {batch_size: 5}")
    )
    assert check_same_settings(before, before) == []
    assert check_same_settings(before, now) == [
        "train.epochs: 3 -> 4",
        "train.log_every: 100 -> 7",
        "evaluation.batch_size: 64 -> 5",
        "data.workers: None -> 1",
        "data.path: 'data/imagenet' -> 'elsewhere'",
    ]
    for text, message in (
        ("train: {epochs: 4, batch_size: 5}", "the settings of the run: train.batch_size was 128, is 5"),
        ("network: {dfc_gate: none}", "network.dfc_gate was 'sigmoid', is 'none'"),
        ("task: detection", "task was classification, is detection"),
    ):
        with pytest.raises(UserError, match=message):
            check_same_settings(before, load(write(text)))


def test_choices_of_the_settings_are_those_of_the_tables():
    hints = get_type_hints(ScheduleSettings)
    assert get_args(hints["name"]) == tuple(SCHEDULES)
    assert get_args(get_type_hints(BackboneSettings)["name"]) == tuple(NETWORKS)


def test_a_key_of_older_files_is_read_under_its_present_name(tmp_path):
    (tmp_path / "old.yaml").write_text("augment:\n  rand_augment: v0\n")
    (tmp_path / "new.yaml").write_text("base: old.yaml\naugment: {policy: trivial}\n")
    former, both = ("augment.rand_augment", "original", "here"), tmp_path / "both.yaml"
    assert load_config(tmp_path / "old.yaml", SCHEMAS).augment.policy == "v0"
    assert load_config(tmp_path / "new.yaml", SCHEMAS).augment.policy == "trivial"
    assert load_config(tmp_path / "new.yaml", SCHEMAS, [former]).augment.policy == "original"
    later = [former, ("augment.policy", None, "here")]
    assert load_config(tmp_path / "old.yaml", SCHEMAS, later).augment.policy is None
    both.write_text("augment:\n  policy: v0\n  rand_augment: v0\n")
    with pytest.raises(UserError, match=r"both.yaml:3: augment.rand_augment: is policy's former name; it has both$"):
        load_config(both, SCHEMAS)
