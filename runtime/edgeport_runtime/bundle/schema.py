"""Checks of JSON values; each raises ManifestError with the value's path, such as ``variants[1].sha256``."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from edgeport_runtime.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "expect_choice",
    "expect_digest",
    "expect_file",
    "expect_integer",
    "expect_list",
    "expect_number",
    "expect_object",
    "expect_string",
    "fail",
]

# A plain relative path: no drive, no parent, no hidden file, no separator but "/".
_FILE = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*/)?[A-Za-z0-9_][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fail(context: str, message: str) -> NoReturn:
    """Raise ManifestError for the value at that path."""
    raise ManifestError(message, context=context)


def expect_object(
    value: Any, context: str, fields: tuple[str, ...] = (), *, optional: tuple[str, ...] = (), exact: bool = True
) -> dict[str, Any]:
    """An object; with all of the fields, perhaps the optional ones, and none other where ``exact``."""
    if not isinstance(value, dict):
        fail(context, f"is {_kind(value)}, not an object")
    for field in fields:
        if field not in value:
            fail(context, f"lacks the field {field!r}")
    if fields and exact:
        for field in value:
            if field not in fields + optional:
                fail(context, f"has the unknown field {field!r}")
    return value


def expect_list(value: Any, context: str) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        fail(context, f"is {_kind(value)}, not a list")
    return value


def expect_string(value: Any, context: str) -> str:
    """A string."""
    if not isinstance(value, str):
        fail(context, f"is {_kind(value)}, not a string")
    return value


def expect_choice(value: Any, context: str, choices: Sequence[str]) -> Any:
    """One of some strings."""
    if value not in choices:
        kind = context.rpartition(".")[2]
        article = "an" if kind[0] in "aeiou" else "a"
        fail(context, f"{value!r} is not {article} {kind} that this version knows ({', '.join(choices)})")
    return value


def expect_integer(value: Any, context: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        fail(context, f"is {value!r}, not a whole number from {low} to {high}")
    return value


def expect_number(value: Any, context: str) -> float:
    """A positive number, whole or not."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
        fail(context, f"is {value!r}, not a positive number")
    return float(value)


def expect_file(value: Any, context: str) -> str:
    """A plain path inside the bundle."""
    name = expect_string(value, context)
    if not _FILE.fullmatch(name):
        fail(context, f"{name!r} is not a plain path inside the bundle")
    return name


def expect_digest(value: Any, context: str) -> str:
    """A SHA-256 digest in lower-case hexadecimal."""
    digest = expect_string(value, context)
    if not _SHA256.fullmatch(digest):
        fail(context, f"{digest!r} is not a SHA-256 digest in hexadecimal")
    return digest


def _kind(value: Any) -> str:
    return "missing" if value is None else f"of type {type(value).__name__}"
