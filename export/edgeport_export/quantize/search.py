"""Finds the layers that go back to float so that a budget is met, and what each of them costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import onnx

    from edgeport_export.quantize.drop import Drop
    from edgeport_export.quantize.judge import Judge

__all__ = ["Quantizer", "Trade", "rank", "search"]


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
