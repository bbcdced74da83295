"""Labels from a user's file: lines of text, a table as Excel saves it, or JSON as training scripts write it."""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any

from edgeport_runtime.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["read_labels"]

_MAX_LABELS_BYTES = 16 * 2**20
_JSON_REMEDY = (
    'give a list of names, an object of names to indices ({"cat": 0}) or of indices to names ({"0": "cat"}), or the '
    "config.json of transformers or timm"
)
_LINES_REMEDY = "give the names alone, one per line in class order, or a .csv with a column of indices from 0"
_CSV_REMEDY = "give one column of names, or a column of indices from 0 and one of names"
# Entries of a JSON object that hold the labels: config.json of transformers and timm, and what scripts write around.
_ENTRIES = ("id2label", "label2id", "label_names", "class_to_idx", "idx_to_class", "classes", "labels")
_NAME_HEADERS = ("label", "labels", "name", "names", "class", "classes", "class_name", "category")
_INDEX_HEADERS = ("index", "idx", "id", "class_id", "class_index", "label_id")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_NEVER = "\x1f"  # a separator that no table has
_NUMBERED = re.compile(r"\s*\d+\s*[;,\t]")
_INDEX_AND_NAME = re.compile(r"\s*(\d{1,7})(\s*[:;,\t]|\s)\s*(\S.*)")


class _UnclearError(ValueError):
    """Why a file cannot be understood as labels."""


class _NumberedError(_UnclearError):
    """The lines of a text begin with numbers that may be indices."""


def read_labels(path: Path) -> tuple[str, ...]:
    """Labels in the order of the classes.

    Args:
        path: text with one label per line, which may begin with its index; ``.csv``, separated by ``,``, ``;`` or tabs,
            with or without a header; or JSON: a list of names, names to indices, indices to names, or the
            ``config.json`` of a checkpoint.

    Raises:
        ExportError: if it cannot be read, or a class has no name.
    """
    text = _text_of(path)
    is_json = path.suffix.lower() == ".json"
    try:
        if is_json or text.lstrip().startswith(("{", "[")):
            document = _json_of(text, is_required=is_json)
            if document is not None:
                return _checked(_from_json(document))
        if path.suffix.lower() in (".csv", ".tsv"):
            return _checked(_from_table(text))
        labels = _from_lines(text)
    except (_UnclearError, csv.Error) as error:
        remedy = _CSV_REMEDY if path.suffix.lower() in (".csv", ".tsv") else _JSON_REMEDY
        remedy = _LINES_REMEDY if isinstance(error, _NumberedError) else remedy
        raise ExportError(f"--labels {path}: {error}; {remedy}") from None
    if not labels or not all(labels):
        number = labels.index("") + 1 if labels else 1
        raise ExportError(f"--labels {path}: line {number} is empty; give one label per line, in class order")
    return labels


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_LABELS_BYTES:
            raise ExportError(f"--labels {path} is larger than {_MAX_LABELS_BYTES} bytes; give one label per line")
        data = path.read_bytes()
        return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except OSError as error:
        raise ExportError(f"--labels {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ExportError(
            f"--labels {path} is not UTF-8 text; give one label per line (in Excel, save as CSV UTF-8)"
        ) from None


def _json_of(text: str, *, is_required: bool) -> dict[str, Any] | list[Any] | None:
    """The object or list that a text is in JSON; None for one that only looks like it, where that is allowed."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        if is_required or text.lstrip().startswith("{"):
            raise _UnclearError(f"it is damaged JSON ({error})") from None
        return None
    if not isinstance(document, dict | list):
        raise _UnclearError(f"it is JSON of type {type(document).__name__}, and holds no labels")
    return document


def _from_lines(text: str) -> tuple[str, ...]:
    """One label per line; of lines that all begin with an index, in the order of the indices and without them."""
    lines = [line.strip() for line in text.rstrip().splitlines()]
    found = [_INDEX_AND_NAME.fullmatch(line) for line in lines]
    numbers = [int(match[1]) for match in found if match is not None]
    if len(lines) < 2 or sorted(numbers) != list(range(len(lines))):
        return tuple(lines)
    if all(match is not None and match[2].strip(" ") for match in found):
        return tuple(_ordered([(int(match[1]), match[3]) for match in found if match is not None]))
    if numbers != sorted(numbers):
        raise _NumberedError("its lines begin with the numbers of other classes than those of their order")
    return tuple(lines)  # the number may be a part of the name, as in "3 stars"


def _from_json(document: dict[str, Any] | list[Any]) -> list[str]:
    if isinstance(document, dict):
        entry = next((name for name in _ENTRIES if isinstance(document.get(name), dict | list)), None)
        document = document if entry is None else document[entry]
    if isinstance(document, list):
        return [_name(name) for name in document]
    if not document:
        raise _UnclearError("it is an empty object")
    if all(_index(value) is not None for value in document.values()) and not _are_indices_to_names(document):
        return _ordered([(_index(value), name) for name, value in document.items()])
    if all(_index(key) is not None for key in document):
        return _ordered([(_index(key), _name(value)) for key, value in document.items()])
    key = next(key for key, value in document.items() if _index(value) is None)
    raise _UnclearError(f"it does not map names to indices, nor indices to names (at {key[:60]!r})")


def _are_indices_to_names(document: dict[str, Any]) -> bool:
    """Whether numbers in quotes are the names, as of digits: the keys are indices too."""
    return all(isinstance(value, str) and _index(key) is not None for key, value in document.items())


def _index(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 8:
        return int(value)
    return value if type(value) is int else None


def _name(value: object) -> str:
    """A label, or the last of a pair such as Keras' ``["n01440764", "tench"]``."""
    if isinstance(value, list) and len(value) == 2:
        value = value[1]
    if not isinstance(value, str):
        raise _UnclearError(f"a name is {value!r}"[:80] + ", not text")
    return value


def _ordered(pairs: Sequence[tuple[int | None, str]]) -> list[str]:
    """Names in the order of their indices, which must be 0, 1, 2, ..."""
    names = {index: name for index, name in pairs if index is not None}
    missing = next((i for i in range(len(pairs)) if i not in names), None)
    if missing is not None:
        raise _UnclearError(f"the {len(pairs)} names have no index {missing}; indices are 0 to {len(pairs) - 1}")
    return [names[i] for i in range(len(pairs))]


def _from_table(text: str) -> list[str]:
    lines = text.splitlines()
    while lines and not lines[-1].strip("\t ;,"):  # rows that a spreadsheet has after its last one
        del lines[-1]
    if lines and lines[0].lower().startswith("sep="):  # Excel's note on the separator
        lines = lines[1:]
    rows = _rows(lines)
    if not rows:
        raise _UnclearError("it is empty")
    header = [cell.lower() for cell in rows[0]]
    width = len(header)
    index_column = next((i for i in range(width) if _is_numbered(rows, i) or _is_numbered_below(rows, i)), None)
    if width == 1:
        return [row[0] for row in rows[1 if header[0] in _NAME_HEADERS and len(rows) > 1 else 0 :]]
    has_header = index_column is None or not _is_numbered(rows, index_column)
    named = [i for i in range(width) if has_header and header[i] in _NAME_HEADERS and i != index_column]
    if not named and width == 2 and index_column is not None:
        named = [1 - index_column]
    body = rows[1:] if has_header else rows
    if len(named) != 1:
        raise _UnclearError(f"which of its {width} columns holds the names is not clear")
    if index_column is None:
        indexed = next((header[i] for i in range(width) if header[i] in _INDEX_HEADERS), None)
        if indexed is not None:
            raise _UnclearError(f"the column {indexed} does not count from 0 to {len(body) - 1}")
        return [row[named[0]] for row in body]
    return _ordered([(_index(row[index_column]), row[named[0]]) for row in body])


def _rows(lines: list[str]) -> list[list[str]]:
    """Cells by the separator that gives every line the same number of them, two at least; else one cell a line."""
    for separator in (";", "\t", ","):
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
        widths = {len(row) for row in rows}
        if len(widths) == 1 and widths.pop() > 1:
            used = [i for i in range(len(rows[0])) if any(row[i] for row in rows)]
            return [[row[i] for i in used] for row in rows]
    if len(lines) > 1 and all(_NUMBERED.match(line) for line in lines[1:]):
        raise _UnclearError(
            "its lines differ in their number of columns (put names that hold the separator into quotes)"
        )
    return [[row[0].strip() if row else ""] for row in csv.reader(lines, delimiter=_NEVER)]


def _is_numbered(rows: list[list[str]], column: int) -> bool:
    indices = [_index(row[column]) for row in rows]
    return bool(rows) and None not in indices and sorted(i for i in indices if i is not None) == list(range(len(rows)))


def _is_numbered_below(rows: list[list[str]], column: int) -> bool:
    return _index(rows[0][column]) is None and _is_numbered(rows[1:], column)


def _checked(labels: list[str]) -> tuple[str, ...]:
    stripped = tuple(label.strip() for label in labels)
    if not stripped or not all(stripped):
        number = stripped.index("") if stripped else 0
        raise _UnclearError(f"class {number} has no name")
    return stripped
