"""Signals unwind a command, at once or, within an import, a moment later."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from edgeport_runtime.commands.console import _unwind, run_command

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_what_arrives_within_an_import_is_raised_after_it(number: signal.Signals, error: type[BaseException]) -> None:
    frame: Any = SimpleNamespace(f_code=SimpleNamespace(co_filename="<frozen importlib._bootstrap>"))
    _unwind(number, frame)  # what is raised there is lost
    with pytest.raises(error):
        time.sleep(5)


def test_an_interruption_has_its_status() -> None:
    def body() -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert run_command(body) == 130


def test_what_arrives_while_a_class_names_its_fields_is_raised_after_that() -> None:
    class Field:
        def __set_name__(self, owner: type, name: str) -> None:
            signal.raise_signal(signal.SIGINT)

    def body() -> int:
        type("Made", (), {"field": Field()})  # Python would make a RuntimeError of what is raised there
        time.sleep(5)
        return 0

    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert run_command(body) == 130
