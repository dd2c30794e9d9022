"""Configuration files: YAML with inheritance, plus command-line overrides, checked into dataclasses of settings.

A file may name another as `base:` and then states only what differs. Whatever is wrong ends in one line: where it
stands, which key, what is allowed.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from src.errors import UserError, suggestion
from src.fields import check


@dataclass(frozen=True)
class Value:
    """A value and where it was written: 'FILE:LINE', or the command line."""

    content: Any
    source: str


def load_config(path, schemas, overrides=(), text=None):
    """Read `path`, its bases and `overrides` into the settings class of its task.

    Args:
        path: YAML file.
        schemas: {task name: subclass of Config}.
        overrides: (dotted key, value, source) in order, such as ("train.epochs", 3, "command line").
        text: YAML that another kind of file, `path`, holds.

    Raises:
        UserError: for whatever is wrong in them.
    """
    tree = read_yaml(Path(path), text=text)
    for key, content, source in overrides:
        *sections, leaf = key.split(".")
        mapping = {leaf: to_tree(content, source)}
        for section in reversed(sections):
            mapping = {section: Value(mapping, source)}
        tree = merge(tree, Value(mapping, source))
    task = tree.content.get("task", Value("classification", str(path)))
    if task.content not in schemas:
        allowed = ", ".join(schemas)
        raise UserError(
            f"{task.source}: task: {task.content!r} is not one of {allowed}{suggestion(task.content, schemas)}"
        )
    return build_settings(schemas[task.content], tree, "")


def parse_override(text: str):
    """Read 'section.key=value' as ('section.key', value, 'command line'); the value is YAML."""
    key, separator, value = text.partition("=")
    if not separator or not key or any(not part for part in key.split(".")):
        raise UserError(f"command line: {text!r} is not of the form section.key=value")
    try:
        return key, yaml.safe_load(value), "command line"
    except yaml.YAMLError:
        raise UserError(f"command line: {key}: {value!r} is not valid YAML") from None


def dump_config(config) -> str:
    """Write all settings as YAML, which `load_config` reads back to an equal object."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True)


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def read_yaml(path: Path, seen=(), text=None) -> Value:
    """Read and merge `path` and its bases; each mapping is {key: Value}, each leaf knows its line."""
    if path.resolve() in seen:
        raise UserError(f"{seen[-1]}: base: {path} is its own base")
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        origin = f"{seen[-1]}: base: " if seen else ""
        raise UserError(f"{origin}{path}: {reason}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = _read_node(node, path) if node else Value({}, str(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(tree.content, dict):
        raise UserError(f"{path}: holds no mapping of settings")
    base = tree.content.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base.content, str):
        raise UserError(f"{base.source}: base: is not a file name")
    return merge(read_yaml(path.parent / base.content, (*seen, path.resolve())), tree)


def _read_node(node, path: Path) -> Value:
    """Turn a YAML node into plain Python, each mapping's values wrapped with their lines."""
    source = f"{path}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        loader = yaml.SafeLoader("")
        return Value(loader.construct_object(node, deep=True), source)
    mapping = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in mapping:
            raise UserError(f"{path}:{line}: {key}: is given twice")
        value = _read_node(value_node, path)
        mapping[key] = Value(value.content, f"{path}:{line}")
    return Value(mapping, source)


def to_tree(content, source: str) -> Value:
    """Turn plain Python into a tree in which every value has the same source."""
    if isinstance(content, dict):
        content = {str(key): to_tree(item, source) for key, item in content.items()}
    return Value(content, source)


def to_plain(tree: Value):
    """Turn a tree back into plain Python."""
    if isinstance(tree.content, dict):
        return {key: to_plain(item) for key, item in tree.content.items()}
    return tree.content


def merge(base: Value, top: Value) -> Value:
    """Put `top` over `base`: mappings are merged key by key, anything else is replaced."""
    if not (isinstance(base.content, dict) and isinstance(top.content, dict)):
        return top
    merged = dict(base.content)
    for key, value in top.content.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return Value(merged, top.source)


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
        raise UserError(f"{tree.source}: {prefix}{error}") from None


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
