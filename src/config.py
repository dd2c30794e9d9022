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

MAX_FILE_SIZE = 2**23  # bytes; the class names of the largest public datasets are a third of that
MAX_LEVELS = 20  # of lists and mappings in each other
MAX_NUMBER_LENGTH = 100  # characters; Python refuses to convert some thousand digits
PREFIX = "tag:yaml.org,2002:"
TAGS = {
    yaml.ScalarNode: [PREFIX + name for name in ("null", "bool", "int", "float", "str")],
    yaml.SequenceNode: [PREFIX + "seq"],
    yaml.MappingNode: [PREFIX + "map"],
}


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
    path = Path(path)
    tree = read_yaml(path, read_text(path) if text is None else text)
    for key, content, source in overrides:
        *sections, leaf = key.split(".")
        mapping = {leaf: to_tree(content, source)}
        for section in reversed(sections):
            mapping = {section: Value(mapping, source)}
        tree = merge(tree, Value(mapping, source))
    task = tree.content.get("task", Value("classification", str(path)))
    name = to_plain(task)
    if name not in list(schemas):  # a list compares, where a dict would hash
        raise UserError(f"{task.source}: task: {name!r} is not one of {', '.join(schemas)}{suggestion(name, schemas)}")
    return build_settings(schemas[name], tree, "")


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
        return key, to_plain(_parse(value, "command line")), "command line"
    except yaml.YAMLError as error:
        raise UserError(f"command line: {key}: {_explain(error, value)[1]}") from None


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


def read_yaml(path: Path, text: str, seen=()) -> Value:
    """Read the YAML `text` of `path` and merge it over its base, unless that is among the files `seen` before.

    Returns:
        Tree in which each mapping is {key: Value}, and each value knows its line.

    Raises:
        UserError: if this or a base is missing or not valid.
    """
    try:
        tree = _parse(text, path)
    except yaml.YAMLError as error:
        line, reason = _explain(error, text)
        raise UserError(f"{path}:{line}: {reason}") from None
    if tree.content is None:
        return Value({}, str(path))
    if not isinstance(tree.content, dict):
        raise UserError(f"{path}: holds no mapping of settings")
    base = tree.content.pop("base", None)
    if base is None:
        return tree
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
    return merge(read_yaml(base_path, base_text, seen), tree)


class Loader(yaml.SafeLoader):
    """YAML of null, true, false, numbers and texts in lists and mappings: a date is a text, `<<` a common key."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in TAGS[yaml.ScalarNode]]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    level = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):  # a value could hold itself, or grow by a factor at each level
            raise _refusal(f"the alias *{event.anchor} is not allowed, only the value itself", event)
        self.level += 1
        if self.level > MAX_LEVELS:
            raise _refusal(f"lists and mappings have more than {MAX_LEVELS} levels", event)
        node = super().compose_node(parent, index)
        self.level -= 1
        return node


def _refusal(reason, place):
    """Make the error of valid YAML that settings do not have, at an event or node."""
    return yaml.constructor.ConstructorError(None, None, reason, place.start_mark)


def _explain(error, text):
    """Give the line and the reason of an error of YAML."""
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, error.position) + 1, f"not valid YAML: has the character {chr(error.character)!r}"
    prefix = "" if isinstance(error, yaml.constructor.ConstructorError) else "not valid YAML: "
    return error.problem_mark.line + 1, prefix + ", ".join(filter(None, (error.context, error.problem)))


def _parse(text: str, path) -> Value:
    """Parse YAML into a tree, an empty text into None; raises `yaml.YAMLError`, see `_explain`."""
    node = yaml.compose(text, Loader=Loader)
    return _read_node(node, path) if node else Value(None, str(path))


def _read_node(node, path) -> Value:
    """Turn a YAML node into plain Python, each mapping's values wrapped with their lines."""
    source = f"{path}:{node.start_mark.line + 1}"
    if node.tag not in TAGS[type(node)]:
        raise _refusal(f"the tag {node.tag.replace(PREFIX, '!!')} is not one of plain values, lists and mappings", node)
    if isinstance(node, yaml.ScalarNode):
        return Value(_read_scalar(node), source)
    if isinstance(node, yaml.SequenceNode):
        return Value([to_plain(_read_node(item, path)) for item in node.value], source)
    mapping = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _refusal("a key is a list or mapping, only a text is allowed", key_node)
        key = key_node.value
        if key in mapping:
            raise _refusal(f"{key}: is given twice", key_node)
        mapping[key] = Value(_read_node(value_node, path).content, f"{path}:{key_node.start_mark.line + 1}")
    return Value(mapping, source)


def _read_scalar(node):
    """Turn a node of one value into None, a bool, an int, a float or a text."""
    kind = node.tag.removeprefix(PREFIX)
    if kind in ("int", "float") and len(node.value) > MAX_NUMBER_LENGTH:
        raise _refusal(f"a number of {len(node.value)} characters, at most {MAX_NUMBER_LENGTH} are allowed", node)
    try:
        return Loader("").construct_object(node)
    except (ValueError, LookupError, OverflowError):  # PyYAML's own way to say that a tag does not fit
        raise _refusal(f"{node.value!r} is not a valid !!{kind}", node) from None


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
        raise UserError(f"{_find_source(tree, str(error))}: {prefix}{error}") from None


def _find_source(tree: Value, message: str) -> str:
    """Find where the setting was written that a message begins with; else where its section was."""
    for key in message.partition(":")[0].split("."):
        if not isinstance(tree.content, dict) or key not in tree.content:
            break
        tree = tree.content[key]
    return tree.source


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
