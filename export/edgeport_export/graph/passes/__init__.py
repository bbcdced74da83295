"""Graph passes: each changes a model in place and says what it changed, and why it left what looks like its pattern.

A pass leaves the graph's inputs, outputs and opset as they are, every name defined before it is used, and the function
computed the same; ``run_passes`` checks the first three after each pass, the parity chain the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeport_export.graph.index import check_graph, remove_unused
from edgeport_export.graph.passes.fold_attention_scale import fold_attention_scale
from edgeport_export.graph.passes.strip_metadata import strip_metadata
from edgeport_runtime.errors import SimplifyError

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from edgeport_export.graph.outcome import Outcome

__all__ = ["PASSES", "run_passes"]

PASSES: tuple[Callable[[onnx.ModelProto], Outcome], ...] = (
    strip_metadata,  # first: what later passes and engines see carries no trace of the build machine
    fold_attention_scale,  # last: needs constant weights, which onnxsim's folding has made
)


def run_passes(
    model: onnx.ModelProto, passes: tuple[Callable[[onnx.ModelProto], Outcome], ...] | None = None
) -> list[str]:
    """Apply passes in order (``PASSES`` unless given), checking the graph after each that changed it.

    Args:
        model: changed in place.
        passes: which, and in which order.

    Returns:
        What each pass changed, and why it left the places that it left, in a line each.

    Raises:
        SimplifyError: naming the pass, if it leaves an invalid graph.
    """
    notes = []
    contract = _boundary(model)
    for apply in PASSES if passes is None else passes:
        outcome = apply(model)
        notes += outcome.notes(apply.__name__)
        if not outcome.num_changed:
            continue
        remove_unused(model)
        try:
            check_graph(model)
        except ValueError as error:
            raise SimplifyError(f"the pass {apply.__name__} left an invalid graph: {error}") from None
        if _boundary(model) != contract:
            raise SimplifyError(f"the pass {apply.__name__} changed the graph's inputs, outputs or opset")
    return notes


def _boundary(model: onnx.ModelProto) -> tuple[list[bytes], list[bytes], list[bytes]]:
    return (
        [value.SerializeToString() for value in model.graph.input],
        [value.SerializeToString() for value in model.graph.output],
        [opset.SerializeToString() for opset in model.opset_import],
    )
