"""Silences libraries that log while they quantize."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["quiet_logging"]


@contextlib.contextmanager
def quiet_logging() -> Iterator[None]:
    """Hold back warnings and what is below them, from every logger; then the caller's logging is as it was."""
    root, handler = logging.getLogger(), logging.NullHandler()
    disabled = root.manager.disable
    root.addHandler(handler)  # a root without handlers is given one by logging.warning(), and would keep it
    logging.disable(max(disabled, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(disabled)
        root.removeHandler(handler)
