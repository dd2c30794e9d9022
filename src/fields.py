"""Fields of dataclasses of settings: a default, what is allowed, and the check of a value against it.

The settings and the networks' own options are both declared with these, so each default, range and choice stands once.
"""

import dataclasses
import math
import os
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from src.errors import UserError, suggestion

NONE = type(None)
ON = object()  # of what a setting needs: any value but None, false, 0 and nothing
TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def bounded(default, low=None, high=None, length=None, may_change=False):
    """Declare a field of a dataclass that is restricted to low <= value <= high.

    Args:
        default: value of the field where none is given.
        low, high: bounds; of a tuple, those of each of its items.
        length: most items of a tuple of any length.
        may_change: whether a resumed run may have another value than the run had before.
    """
    metadata = {"low": low, "high": high, "length": length, "may_change": may_change}
    return dataclasses.field(default=default, metadata=metadata)


def changeable(default):
    """Declare a field of a dataclass in which a resumed run may differ from what it was before."""
    return bounded(default, may_change=True)


def check_fields(instance) -> None:
    """Check all fields of a frozen dataclass against their types, choices and bounds, and convert them.

    Raises:
        UserError: naming the first field that is wrong, its value, and what is allowed.
    """
    hints = get_type_hints(type(instance))
    for item in dataclasses.fields(instance):
        try:
            value = check(getattr(instance, item.name), hints[item.name], item.metadata)
        except UserError as error:
            raise UserError(f"{item.name}: {error}") from None
        object.__setattr__(instance, item.name, value)


def check_rising(instance, *names) -> None:
    """Raise `UserError` unless each of these fields of a dataclass is a pair (low, high) in rising order."""
    for name in names:
        low, high = getattr(instance, name)
        if low > high:
            raise UserError(f"{name}: [{low}, {high}] is not in rising order")


def check(content: Any, hint: Any, metadata=None):
    """Check a value and turn it into the type `hint`, within the bounds of a field's `metadata`.

    Raises:
        UserError: saying what the value is, and what is allowed.
    """
    metadata = metadata or {}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Union:
        return None if content is None and NONE in arguments else _check_alternatives(content, arguments, metadata)
    if origin is Literal:
        if not any(content == option and type(content) is type(option) for option in arguments):
            allowed = ", ".join(map(str, arguments))
            raise UserError(f"{content!r} is not one of {allowed}{suggestion(content, arguments)}")
        return content
    if origin is tuple:
        return _check_tuple(content, arguments, metadata)
    return _check_scalar(content, hint, metadata)


def _check_alternatives(content, alternatives, metadata):
    """Check a value against the one alternative of a Union that is of its kind."""
    alternatives = [hint for hint in alternatives if hint is not NONE]
    fitting = [hint for hint in alternatives if _is_of_kind(content, hint)]
    if fitting or len(alternatives) == 1:
        return check(content, (fitting or alternatives)[0], metadata)
    words = [word for hint in alternatives if get_origin(hint) is Literal for word in get_args(hint)]
    kinds = [TYPE_NAMES.get(hint, "a list") for hint in alternatives if get_origin(hint) is not Literal]
    raise UserError(f"{content!r} is not one of {', '.join(map(str, words + kinds))}{suggestion(content, words)}")


def _is_of_kind(content, hint) -> bool:
    """Whether a value is a choice of a Literal, a list for a tuple, or a number or text of a plain type."""
    if get_origin(hint) is Literal:
        return any(content == option and type(content) is type(option) for option in get_args(hint))
    return isinstance(content, (list, tuple)) if get_origin(hint) is tuple else type(content) is hint


def _check_tuple(content, arguments, metadata):
    if not isinstance(content, (list, tuple)):
        raise UserError(f"{content!r} is not a list")
    if arguments[-1] is Ellipsis:
        length = metadata.get("length")
        if length is not None and len(content) > length:
            raise UserError(f"has {len(content)} items, at most {length} are allowed")
        return tuple(check(item, arguments[0], metadata) for item in content)
    if len(content) != len(arguments):
        raise UserError(f"{list(content)!r} has {len(content)} items, needs {len(arguments)}")
    return tuple(check(item, hint, metadata) for item, hint in zip(content, arguments))


def _check_scalar(content, hint, metadata):
    if hint is float and type(content) in (int, str):
        try:
            content = float(content)  # YAML 1.1 reads 1e-3 as a text
        except (ValueError, OverflowError):
            pass
    if type(content) is not hint:
        raise UserError(f"{content!r} is not {TYPE_NAMES[hint]}")
    if hint is float and not math.isfinite(content):
        raise UserError(f"{content} is not a finite number")
    if hint is str and content == "":
        raise UserError("is an empty text")
    if hint is str and not _is_encodable(content):
        raise UserError(f"{content!r} has a character that no file name can have")
    low, high = metadata.get("low"), metadata.get("high")
    if (low is not None and content < low) or (high is not None and content > high):
        bounds = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
        raise UserError(f"{content} is out of range: {' and '.join(bounds)}")
    return content


def _is_encodable(text: str) -> bool:
    """Whether a text can be a file's name: YAML's escapes also make NUL and halves of surrogate pairs."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False
