"""Drop what the exporter notes for itself: source paths of the build machine, class names, comments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeport_export.graph.outcome import Outcome

if TYPE_CHECKING:
    import onnx

__all__ = ["strip_metadata"]


def strip_metadata(model: onnx.ModelProto) -> Outcome:
    """Clear documentation and metadata of the model, its graph, nodes and values, and name nodes without a name.

    The same network then gives the same bytes wherever it is exported.

    Args:
        model: changed in place.

    Returns:
        How many were cleared, and how many named.
    """
    num_changed = 0
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        num_changed += bool(holder.doc_string) or len(holder.metadata_props) > 0
        holder.ClearField("doc_string")
        del holder.metadata_props[:]
    taken = {node.name for node in graph.node}
    for i, node in enumerate(graph.node):
        if not node.name:
            name = f"{node.op_type}_{i}"
            node.name = name if name not in taken else f"{name}_{node.output[0]}"
            num_changed += 1
    return Outcome(num_changed=num_changed, absent="every node has a name, and nothing has notes")
