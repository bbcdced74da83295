"""Finds the layers that go back to float so that a budget is met, and what each of them costs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import onnx

    from edgeport_export.quantize.drop import Drop
    from edgeport_export.quantize.judge import Judge

__all__ = ["Quantizer", "Trade", "rank", "recover", "search"]

_MAX_GROUPS = 24  # layers next to each other are ranked together where there are more


class Quantizer(Protocol):
    """A float model made ready, from which any choice of its layers can be quantized."""

    @property
    def model(self) -> onnx.ModelProto:
        """The float model."""

    def layers(self) -> list[str]:
        """Names of the nodes that can be quantized, in the graph's order."""

    def quantize(self, layers: Collection[str]) -> onnx.ModelProto:
        """The model with these of its layers quantized."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trade:
    """One step: the layer that went back to float (None at the start), and the loss that is left.

    Attributes:
        layer: name of its node.
        signal_to_noise_db: at the outputs, with this layer alone quantized.
        drop: with it and those before it in float.
    """

    layer: str | None
    signal_to_noise_db: float | None
    drop: Drop

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        noise = self.signal_to_noise_db
        return {
            "layer": self.layer,
            "signal_to_noise_db": None if noise is None else round(noise, 2),
            "drop": self.drop.to_dict(),
        }


def rank(
    quantizer: Quantizer, judge: Judge, *, on_progress: Callable[[int, int], None] | None = None
) -> list[tuple[str, float]]:
    """Each layer with the signal to noise ratio in decibels at the outputs when it alone is quantized, worst first."""
    layers = quantizer.layers()
    costs = []
    for done, layer in enumerate(layers):
        costs.append((layer, judge.probe(quantizer.quantize([layer]))))
        if on_progress is not None:
            on_progress(done + 1, len(layers))
    return sorted(costs, key=lambda pair: pair[1])


def search(
    quantizer: Quantizer,
    judge: Judge,
    *,
    max_drop: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[onnx.ModelProto, list[Trade]]:
    """Quantize as many layers as a budget allows: those that cost most go back to float, one after another.

    Returns:
        The first model within the budget, or the one with the smallest loss if none is; and the steps to it.
    """
    layers = quantizer.layers()
    model = quantizer.quantize(layers)
    trades = [Trade(layer=None, signal_to_noise_db=None, drop=judge.drop(model))]
    if trades[0].drop.points <= max_drop:
        return model, trades
    best, best_length = model, 1
    kept = dict.fromkeys(layers)
    for layer, noise in rank(quantizer, judge, on_progress=on_progress)[: len(layers) - 1]:
        del kept[layer]
        model = quantizer.quantize(list(kept))
        trades.append(Trade(layer=layer, signal_to_noise_db=noise, drop=judge.drop(model)))
        if trades[-1].drop.points < trades[best_length - 1].drop.points:
            best, best_length = model, len(trades)
        if trades[-1].drop.points <= max_drop:
            break
    return best, trades[:best_length]


def recover(
    quantizer: Quantizer,
    judge: Judge,
    *,
    is_met: Callable[[onnx.ModelProto], bool],
    multiply_adds: Mapping[str, int],
    most: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[onnx.ModelProto, list[str]] | None:
    """Return layers to float until a model passes: first those whose error is largest for the work that they save.

    The errors of layers are taken to add up, so that half of the groups are tried, then a quarter more or less, and so
    on: at most 24 models on a few images to rank them, and 6 that are judged.

    Args:
        quantizer: whose model with all of its layers does not pass.
        judge: of the errors.
        is_met: whether a model passes.
        multiply_adds: of each layer.
        most: multiply-adds that may go back to float.
        on_progress: called with (ranked, all).

    Returns:
        The model with the fewest layers in float that was seen to pass, and those layers; None if there is none.
    """
    layers = quantizer.layers()
    groups = _in_groups(layers)
    worth = []
    for done, group in enumerate(groups):
        noise = 10 ** (-judge.probe(quantizer.quantize(group)) / 10)
        worth.append(noise / max(1, sum(multiply_adds.get(name, 0) for name in group)))
        if on_progress is not None:
            on_progress(done + 1, len(groups))
    order = sorted(range(len(groups)), key=lambda i: -worth[i])
    returned: list[list[str]] = [[]]
    for i in order[:-1]:
        returned.append([*returned[-1], *groups[i]])
        if sum(multiply_adds.get(name, 0) for name in returned[-1]) > most:
            returned.pop()
            break
    low, high, found = 1, len(returned) - 1, None
    while low <= high:
        middle = (low + high) // 2
        gone = set(returned[middle])
        model = quantizer.quantize([name for name in layers if name not in gone])
        if is_met(model):
            found, high = (model, returned[middle]), middle - 1
        else:
            low = middle + 1
    return found


def _in_groups(layers: Sequence[str]) -> list[list[str]]:
    """Layers in their order, in at most 24 groups as equal as can be."""
    num = min(_MAX_GROUPS, len(layers))
    ends = [len(layers) * i // num for i in range(num + 1)]
    return [list(layers[start:stop]) for start, stop in itertools.pairwise(ends)]
