"""What training writes: weights, and beside them what they need to be exported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["write_atomically", "write_json", "write_model"]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its target and move it there, so that it is never half-written."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document."""
    write_atomically(path, lambda p: p.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8"))


def write_model(
    folder: Path,
    state: Mapping[str, torch.Tensor],
    contract: Contract,
    *,
    architecture: str,
    options: Mapping[str, str | bool],
) -> None:
    """``model.safetensors``, ``config.json`` (task and labels) and ``preprocessor_config.json`` (the input)."""
    tensors = {key: value.contiguous() for key, value in state.items() if not key.endswith("num_batches_tracked")}
    write_atomically(folder / "model.safetensors", lambda path: save_file(tensors, path))
    entry = {"architecture": architecture, "task": contract.task, "options": dict(options)}
    config: dict[str, Any] = {"edgeport": entry}
    if contract.labels is not None:
        config["id2label"] = {str(i): label for i, label in enumerate(contract.labels)}
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", {"edgeport": contract.preprocess.to_dict()})
