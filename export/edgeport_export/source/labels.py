"""Labels from a user's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeport_runtime.errors import ExportError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_labels"]

_MAX_LABELS_BYTES = 16 * 2**20


def read_labels(path: Path) -> tuple[str, ...]:
    """Labels from a text file, one per line.

    Raises:
        ExportError: if it cannot be read, or a line is empty.
    """
    try:
        if path.stat().st_size > _MAX_LABELS_BYTES:
            raise ExportError(f"--labels {path} is larger than {_MAX_LABELS_BYTES} bytes; give one label per line")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ExportError(f"--labels {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ExportError(f"--labels {path} is not UTF-8 text; give one label per line") from None
    labels = tuple(line.strip() for line in lines)
    if not labels or not all(labels):
        number = labels.index("") + 1 if labels else 1
        raise ExportError(f"--labels {path}: line {number} is empty; give one label per line, in class order")
    return labels
