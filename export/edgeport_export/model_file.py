"""ONNX models as files: one file, or two where protobuf's limit of 2 GB makes it so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from edgeport_runtime.errors import SimplifyError
from edgeport_runtime.manifest import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["data_beside", "digests_of", "move_model", "save_model"]

MAX_INLINE_BYTES = 2**31 - 2**20  # of weights: protobuf refuses files of 2 GiB, and the graph needs its part


def save_model(model: onnx.ModelProto, path: Path, *, check: bool) -> None:
    """Write a model; its weights go into ``<path>.data`` if they are too large for one file.

    Args:
        model: its weights may be taken out of it.
        path: the ``.onnx`` file.
        check: that it is valid ONNX.

    Raises:
        SimplifyError: if it is not.
    """
    try:
        if sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= MAX_INLINE_BYTES:
            content = model.SerializeToString()
            if check:
                onnx.checker.check_model(content)
            path.write_bytes(content)
            return
        data = path.with_name(f"{path.name}.data")
        data.unlink(missing_ok=True)  # onnx appends
        onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name)
        data.chmod(path.stat().st_mode)  # onnx makes it for its owner alone
        if check:
            onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise SimplifyError(f"the graph is not valid ONNX: {error}") from error


def data_beside(path: Path) -> Path | None:
    """The file that holds a model's weights; None if they are in the model itself."""
    data = path.with_name(f"{path.name}.data")
    return data if data.is_file() else None


def move_model(path: Path, folder: Path) -> Path:
    """Move a model, and its weights with it, to another folder; the names stay, by which one finds the other."""
    data = data_beside(path)
    if data is not None:
        data.rename(folder / data.name)
    return path.rename(folder / path.name)


def digests_of(path: Path) -> tuple[str, ...]:
    """SHA-256 of a model's file, and of the file of its weights where there is one."""
    data = data_beside(path)
    return (sha256_of(path),) if data is None else (sha256_of(path), sha256_of(data))
