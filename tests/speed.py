"""Which cases of a test run in `make test`, and which in `make test-slow` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _pytest.mark import ParameterSet


def slow_but(kept: Iterable[str], names: Iterable[str]) -> list[ParameterSet]:
    """A parameter for each name; those that are not kept are slow."""
    kept, names = set(kept), list(names)
    assert kept <= set(names), kept - set(names)
    return [pytest.param(name, marks=() if name in kept else pytest.mark.slow) for name in names]
