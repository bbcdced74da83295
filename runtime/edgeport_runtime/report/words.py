"""What the page says of values: numbers as people read them, and text that cannot pass for anything else."""

from __future__ import annotations

import shlex
import unicodedata
from typing import Any

__all__ = ["METRICS", "cleaned", "error_told", "milliseconds", "shell_lines"]

METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auroc": "AUROC",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "macro_auroc": "macro AUROC",
    "mean_average_precision": "mean average precision",
    "exact_match": "all labels right",
    "cross_entropy": "cross-entropy",
    "calibration_error": "calibration error",
}
"""What people call the metrics, in the order in which they are told."""

_JOINERS = "\u200c\u200d"  # within words of some scripts, and within emoji


def cleaned(value: Any) -> Any:
    """The same JSON value, in whose text a control character, or one that turns the direction, is a replacement."""
    if isinstance(value, str):
        if value.isprintable():
            return value
        return "".join("\ufffd" if _is_hidden(c) else c for c in value)
    if isinstance(value, dict):
        return {cleaned(key): cleaned(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(one) for one in value]
    return value


def error_told(value: float | None) -> str:
    """A relative error."""
    return "not finite" if value is None else "0" if value == 0 else f"{value:.1e}"


def milliseconds(value: float | None) -> str:
    """A time with three digits."""
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def shell_lines(command: str) -> str:
    """A command of the shell with a line for each option; what is none as it is."""
    if not command.startswith("export-model "):
        return command
    lines: list[list[str]] = [[]]
    for word in shlex.split(command):
        if word.startswith("-"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n  ".join(map(shlex.join, lines))


def _is_hidden(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in _JOINERS
