"""What both commands share: exit statuses, one-line errors, and signals that unwind instead of killing."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING

from edgeport_runtime.errors import EdgeportError, ImageWarning, ParityError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["DONE", "ERROR", "INTERRUPTED", "PARITY", "USAGE", "run_command"]

DONE, ERROR, USAGE, PARITY, INTERRUPTED = 0, 1, 2, 3, 130
_RETRY_S = 0.02


def run_command(body: Callable[[], int], *, is_quiet: bool = False) -> int:
    """Run a command's body; errors become one line on stderr and an exit status.

    Args:
        body: returns the exit status.
        is_quiet: show no warnings.

    Returns:
        The status: the body's, 1 for an error, 3 where parity or accuracy is not met, 130 when interrupted.
    """
    signal.signal(signal.SIGTERM, _unwind)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _unwind)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a label or a path that its encoding does not have
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # libraries warn their callers; a user of the command reads one line
            if not is_quiet:
                warnings.filterwarnings("default", category=ImageWarning)
            warnings.showwarning = _WarningsOnce()
        return _run(body)


def _run(body: Callable[[], int]) -> int:
    try:
        status = body()
        sys.stdout.flush()
        return status
    except EdgeportError as error:
        print(f"error: {error}", file=sys.stderr)
        return PARITY if isinstance(error, ParityError) else ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; what is left in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except OSError as error:
        name = error.filename2 or error.filename  # of a copy the second is what could not be written
        where = f"{name}: " if name else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return ERROR
    except MemoryError:
        print("error: out of memory", file=sys.stderr)
        return ERROR


class _WarningsOnce:
    """Show a warning at its first image alone; Python itself forgets what it showed when a filter changes."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def __call__(self, message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in self.said:
            self.said.add(str(message))
            image = f"{message.image}: " if isinstance(message, ImageWarning) else ""
            print(f"warning: {image}{message} (said once)", file=sys.stderr)


def _unwind(signum: int, frame: FrameType | None) -> None:
    """Raise, so that temporary files are removed; not where Python swallows what is raised, or makes another of it."""
    if _would_change(frame) and hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, lambda _, later: _unwind(signum, later))
        signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
        return
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + signum)


def _would_change(frame: FrameType | None) -> bool:
    """True within an import's callbacks, and within ``__set_name__``, of which Python makes a RuntimeError."""
    if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        return True
    while frame is not None and frame.f_code.co_name != "__set_name__":
        frame = frame.f_back
    return frame is not None
