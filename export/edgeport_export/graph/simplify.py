"""From the traced graph to the one that ships: onnxsim, then our own passes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx
import onnxsim

from edgeport_export.graph.lower import matching_ir_version
from edgeport_export.graph.model_file import save_model
from edgeport_export.graph.onnx_file import opset_of
from edgeport_export.graph.passes import run_passes
from edgeport_runtime.bundle.manifest import CONTRACT_KEY
from edgeport_runtime.errors import SimplifyError

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_export.graph.trace import Traced
    from edgeport_runtime.bundle.contract import Contract

__all__ = ["sign", "simplify"]


def simplify(traced: Traced, contract: Contract, path: Path) -> list[str]:
    """Simplify the first graph and write it as a file that carries its contract.

    Args:
        traced: what ``trace`` gave.
        contract: written into the file's metadata.
        path: where to write.

    Returns:
        What each of our passes changed, and why it left the places that it left, in a line each.

    Raises:
        SimplifyError: if onnxsim fails, or a pass leaves an invalid graph.
    """
    try:
        # Constants are folded in every graph.
        model, _ = onnxsim.simplify(str(traced.path), certify=False, perform_optimization=traced.is_rewritten)
    except Exception as error:  # its C++ core raises bare RuntimeError and more
        raise SimplifyError(f"onnxsim failed on the traced graph: {error}") from error
    notes = run_passes(model)
    sign(model, contract)
    save_model(model, path, check=True)
    return notes


def sign(model: onnx.ModelProto, contract: Contract, **others: str) -> None:
    """Write a contract, and others by their keys, into a model's metadata, and EdgePort as who made it."""
    model.ir_version = min(model.ir_version, matching_ir_version(opset_of(model)))
    model.producer_name = "edgeport"
    model.ClearField("producer_version")
    text = json.dumps(contract.to_dict(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    onnx.helper.set_model_props(model, {CONTRACT_KEY: text, **others})
