"""Finds the line of the user's code that an error comes from."""

from __future__ import annotations

import linecache
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    import torch

__all__ = ["line_of_node", "running_line", "say_error", "user_line"]

_STACK_ENTRY = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in \S+\n\s*(?P<code>.*)')
_STDLIB = Path(sysconfig.get_paths()["stdlib"])
_NOT_THEIRS = ("torch", "onnxscript", "onnx_ir", "onnx", "onnxsim", "edgeport_export")  # packages, if imported


def user_line(error: BaseException) -> str | None:
    """The deepest line of the user's code in an error's traceback, or of the errors that caused it.

    Returns:
        ``file.py, line 7: code``; None if only libraries took part.
    """
    found = None
    for one in _chain(error):
        frames = traceback.extract_tb(one.__traceback__)
        found = _last((frame.filename, frame.lineno or 0, frame.line or "") for frame in frames) or found
    return found


def line_of_node(node: torch.fx.Node) -> str | None:
    """The deepest line of the user's code from which a captured node came; as ``user_line``."""
    stack = node.meta.get("stack_trace") or ""
    return _last((m["file"], int(m["line"]), m["code"]) for m in _STACK_ENTRY.finditer(stack))


def running_line() -> str | None:
    """The line of the user's code that is running, for whoever looks on; as ``user_line``."""
    entries: list[tuple[str, int, str]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file, line = frame.f_code.co_filename, frame.f_lineno
        is_ours = _is_in(Path(file), "edgeport_export")
        if is_ours and entries:
            break  # who called the user's code
        if not is_ours:
            entries.append((file, line, linecache.getline(file, line)))
        frame = frame.f_back
    return _last(reversed(entries))


def say_error(error: BaseException) -> str:
    """The first line of an error, and the line of the user's code that it comes from."""
    reason = str(error).strip().splitlines() or [""]
    where = user_line(error)
    return f"{type(error).__name__}: {reason[0]}" + (f" (at {where})" if where else "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _last(entries: Iterable[tuple[str, int, str]]) -> str | None:
    theirs = [entry for entry in entries if _is_theirs(Path(entry[0]))]
    if not theirs:
        return None
    file, line, code = theirs[-1]
    shown = Path(file)
    if shown.is_relative_to(Path.cwd()):
        shown = shown.relative_to(Path.cwd())
    return f"{shown}, line {line}: {code.strip()}"


def _is_theirs(path: Path) -> bool:
    if not path.is_absolute() or any(_is_in(path, name) for name in _NOT_THEIRS):
        return False  # "<string>" and the like are not absolute
    return not path.is_relative_to(_STDLIB) or "site-packages" in path.parts


def _is_in(path: Path, package: str) -> bool:
    folders = getattr(sys.modules.get(package), "__path__", [])
    return any(path.is_relative_to(folder) for folder in folders)
