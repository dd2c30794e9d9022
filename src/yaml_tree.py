"""YAML as a tree in which each value knows where it was written: plain values in lists and mappings alone."""

from dataclasses import dataclass
from typing import Any

import yaml

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


def explain(error, text):
    """Give the line and the reason of an error of YAML."""
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, error.position) + 1, f"not valid YAML: has the character {chr(error.character)!r}"
    prefix = "" if isinstance(error, yaml.constructor.ConstructorError) else "not valid YAML: "
    return error.problem_mark.line + 1, prefix + ", ".join(filter(None, (error.context, error.problem)))


def parse(text: str, path) -> Value:
    """Parse YAML into a tree, an empty text into None; raises `yaml.YAMLError`, see `explain`."""
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
