"""Measures times that can be compared: contenders take turns, each rested and warmed up before its calls count."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["time_in_turn"]

_REST_S = 0.08  # ONNX Runtime's threads spin after a call and would take the cores from the next contender
_WARM_UPS = 2
_MIN_ROUNDS = 2


def time_in_turn(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int = 3,
    least_ms: float = 0.0,
    enough_s: float = float("inf"),
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[float]]:
    """Call every contender in turn, several rounds.

    Each turn begins with a rest of 80 ms and two calls that do not count.

    Args:
        contenders: by name.
        rounds: turns of each.
        calls: calls of a turn that count.
        least_ms: a turn lasts until its calls have taken at least this long together.
        enough_s: after this many seconds no further round begins, once two are done.
        on_progress: called with (turns done, all turns).

    Returns:
        Milliseconds of every call that counts, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    start = time.perf_counter()
    for done in range(rounds):
        if done >= _MIN_ROUNDS and time.perf_counter() - start > enough_s:
            break
        for number, (name, call) in enumerate(contenders.items()):
            time.sleep(_REST_S)
            for _ in range(_WARM_UPS):
                call()
            turn: list[float] = []
            while len(turn) < calls or sum(turn) < least_ms:
                turn.append(_time_ms(call))
            times[name] += turn
            if on_progress is not None:
                on_progress(done * len(contenders) + number + 1, rounds * len(contenders))
    return times


def _time_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3
