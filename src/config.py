"""Configuration files: YAML with inheritance, plus command-line overrides, checked into dataclasses of settings.

A file may name another as `base:` and then states only what differs. Whatever is wrong ends in one line: where it
stands, which key, what is allowed.
"""

import dataclasses
import json
from functools import reduce
from pathlib import Path
from typing import get_type_hints

import yaml

from src.errors import UserError, suggestion
from src.fields import ON, check
from src.yaml_tree import MAX_LEVELS, Value, explain, merge, parse, to_plain, to_tree

MAX_FILE_SIZE = 2**23  # bytes; the class names of the largest public datasets are a third of that
FORMER_NAMES = {"augment": {"rand_augment": "policy"}}  # {section: {key in older files: its name now}}


def load_config(path, schemas, overrides=(), text=None, warnings=None):
    """Read `path`, its bases and `overrides` into the settings class of its task.

    Args:
        path: YAML file.
        schemas: {task name: subclass of Config}.
        overrides: (dotted key, value, source) in order, such as ("train.epochs", 3, "command line").
        text: YAML that another kind of file, `path`, holds.
        warnings: list that the lines of `describe_idle` are added to.

    Raises:
        UserError: for whatever is wrong in them.
    """
    path, given = Path(path), Value({}, "command line")
    layers = read_layers(path, read_text(path) if text is None else text)
    for key, content, source in overrides:
        *sections, leaf = key.split(".")
        mapping = {leaf: to_tree(content, source)}
        for section in reversed(sections):
            mapping = {section: Value(mapping, source)}
        given = merge(given, rename_former(Value(mapping, source)))
    layers.append(given)
    tree = reduce(merge, layers)
    task = tree.content.get("task", Value("classification", str(path)))
    name = to_plain(task)
    if name not in list(schemas):  # a list compares, where a dict would hash
        raise UserError(f"{task.source}: task: {name!r} is not one of {', '.join(schemas)}{suggestion(name, schemas)}")
    config = build_settings(schemas[name], tree, "")
    if warnings is not None:
        warnings += describe_idle(config, layers)
    return config


def parse_override(text: str):
    """Read 'section.key=value' as ('section.key', value, 'command line'); the value is YAML.

    Raises:
        UserError: if it is of another form.
    """
    key, separator, value = text.partition("=")
    parts = key.split(".")
    if not separator or not all(parts) or len(parts) > MAX_LEVELS:
        raise UserError(f"command line: {text!r} is not of the form section.key=value")
    try:
        return key, to_plain(parse(value, "command line")), "command line"
    except yaml.YAMLError as error:
        raise UserError(f"command line: {key}: {explain(error, value)[1]}") from None


def dump_config(config) -> str:
    """Write all settings as YAML, which `load_config` reads back to an equal object."""
    settings = _plain(dataclasses.asdict(config))
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    # PyYAML writes these as they are, and reads them as blanks
    has_breaks = any(character in text for character in "\x85\u2028\u2029")
    return yaml.safe_dump(settings, sort_keys=False) if has_breaks else text


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def read_text(path: Path) -> str:
    """Read a YAML file; raises `UserError` if it is missing, too large, or no text."""
    try:
        size = path.stat().st_size
        if not path.is_file():  # to read a pipe or a device might never end
            raise UserError(f"{path}: is not a file")
        if size > MAX_FILE_SIZE:
            raise UserError(f"{path}: has {size} bytes, settings have at most {MAX_FILE_SIZE}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError:  # bytes that are not UTF-8, or a NUL in the name
        raise UserError(f"{path}: not a text file") from None


def read_yaml(path: Path, text: str) -> Value:
    """Read the YAML `text` of `path`, merged over its bases; see `read_layers`."""
    return reduce(merge, read_layers(path, text))


def read_layers(path: Path, text: str, seen=()) -> list:
    """Read the YAML `text` of `path` and its bases, unless one is among the files `seen` before.

    Returns:
        Trees, the last base's first and that of `path` last; each mapping is {key: Value}, each value knows its line.

    Raises:
        UserError: if this or a base is missing or not valid.
    """
    try:
        tree = parse(text, path)
    except yaml.YAMLError as error:
        line, reason = explain(error, text)
        raise UserError(f"{path}:{line}: {reason}") from None
    if tree.content is None:
        return [Value({}, str(path))]
    if not isinstance(tree.content, dict):
        raise UserError(f"{path}: holds no mapping of settings")
    tree = rename_former(tree)
    base = tree.content.pop("base", None)
    if base is None:
        return [tree]
    if not isinstance(base.content, str):
        raise UserError(f"{base.source}: base: is not a file name")
    base_path = path.parent / base.content
    try:
        base_text = read_text(base_path)
    except UserError as error:
        raise UserError(f"{base.source}: base: {error}") from None
    seen = (*seen, path.resolve())
    if base_path.resolve() in seen:
        raise UserError(f"{base.source}: base: {base_path} is its own base")
    return [*read_layers(base_path, base_text, seen), tree]


def rename_former(tree: Value) -> Value:
    """Give the keys of older files their present names, in the tree of one file or override.

    Raises:
        UserError: if a key is given under both.
    """
    content = dict(tree.content)
    for section, names in FORMER_NAMES.items():
        if section in content and isinstance(content[section].content, dict):
            old = content[section].content
            for former, name in names.items():
                if former in old and name in old:
                    raise UserError(f"{old[former].source}: {section}.{former}: is {name}'s former name; it has both")
            content[section] = Value({names.get(key, key): old[key] for key in old}, content[section].source)
    return Value(content, tree.source)


def build_settings(schema, tree: Value, prefix: str):
    """Build the dataclass `schema` from a tree; every key must be a field, every value of its type and range."""
    if not isinstance(tree.content, dict):
        raise UserError(f"{tree.source}: {prefix.rstrip('.')}: is a section, it needs keys, not {to_plain(tree)!r}")
    hints = get_type_hints(schema)
    fields = {item.name: item for item in dataclasses.fields(schema)}
    arguments = {}
    for key, value in tree.content.items():
        if key not in fields:
            allowed = suggestion(key, fields) or f"; allowed: {', '.join(fields)}"
            raise UserError(f"{value.source}: unknown key {prefix + key!r}{allowed}")
        if dataclasses.is_dataclass(hints[key]):
            arguments[key] = build_settings(hints[key], value, f"{prefix}{key}.")
        else:
            try:
                arguments[key] = check(to_plain(value), hints[key], fields[key].metadata)
            except UserError as error:
                raise UserError(f"{value.source}: {prefix}{key}: {error}") from None
    try:
        return schema(**arguments)
    except UserError as error:
        raise UserError(f"{_find_source(tree, str(error))}: {prefix}{error}") from None


def _find_source(tree: Value, message: str) -> str:
    """Find where the setting was written that a message begins with; else where its section was."""
    for key in message.partition(":")[0].split("."):
        if not isinstance(tree.content, dict) or key not in tree.content:
            break
        tree = tree.content[key]
    return tree.source


def describe_idle(config, layers) -> list:
    """Warn of settings that were given though others, see `Config.needs`, leave them without an effect.

    Given is what the command line has, and what a file has that differs from its default; unless a later layer changed
    what it needs, since a base may say more than is left for it to say.

    Args:
        config: the checked settings.
        layers: the trees that they were made of: those of files, and of the command line.

    Returns:
        A line each.
    """
    lines, default = [], type(config)()
    for key, alternatives in config.needs.items():
        unmet = [[other for other in needed if not _is_met(config, other, needed[other])] for needed in alternatives]
        if not all(unmet):
            continue
        others = list(dict.fromkeys(other for needed in unmet for other in needed))
        place = _last_place(layers, key)
        is_given = place == len(layers) - 1 or (place >= 0 and _value(config, key) != _value(default, key))
        if is_given and place >= max(_last_place(layers, other) for other in others):
            reasons = " and ".join(f"{other}={_show(_value(config, other))}" for other in others)
            lines.append(f"warning: {key} has no effect with {reasons}")
    return lines


def _value(config, key):
    return reduce(getattr, key.split("."), config)


def _is_met(config, key, allowed) -> bool:
    value = _value(config, key)
    return bool(value) if allowed is ON else value in allowed


def _last_place(layers, key) -> int:
    """Find the last of the trees that has a section's key; -1 if none has."""
    section, name = key.split(".")
    contents = [tree.content[section].content if section in tree.content else None for tree in layers]
    return max((i for i, content in enumerate(contents) if isinstance(content, dict) and name in content), default=-1)


def _show(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def check_same_settings(before, now) -> list:
    """Compare the settings of a run with those to go on with.

    Args:
        before, now: configurations.

    Returns:
        Lines about the changes that a resumed run may have.

    Raises:
        UserError: naming the settings that must not change within a run.
    """
    if before.task != now.task:
        raise UserError(f"--resume goes on with the settings of the run: task was {before.task}, is {now.task}")
    changes = [(key, old, new, may_change) for key, old, new, may_change in _pairs(before, now) if old != new]
    forbidden = [f"{key} was {old!r}, is {new!r}" for key, old, new, may_change in changes if not may_change]
    if forbidden:
        raise UserError(f"--resume goes on with the settings of the run: {'; '.join(forbidden)}")
    return [f"{key}: {old!r} -> {new!r}" for key, old, new, _ in changes]


def _pairs(before, now, prefix=""):
    """Yield (dotted key, old value, new value, whether a resumed run may change it) of all settings."""
    for item in dataclasses.fields(now):
        old, new, key = getattr(before, item.name), getattr(now, item.name), prefix + item.name
        if dataclasses.is_dataclass(new):
            yield from _pairs(old, new, f"{key}.")
        else:
            yield key, old, new, item.metadata.get("may_change", False)
