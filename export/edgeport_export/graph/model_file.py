"""ONNX models as files: one file, or two if protobuf's limit of 2 GB requires it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from edgeport_runtime.errors import SimplifyError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["data_beside", "identity_of_data", "move_model", "save_model"]

MAX_INLINE_BYTES = 2**31 - 2**20  # of weights: protobuf refuses files of 2 GiB, and the graph needs its part


def save_model(model: onnx.ModelProto, path: Path, *, check: bool, keep: bool = False) -> None:
    """Write a model; its weights go into ``<path>.data`` if they are too large for one file.

    Args:
        model: its weights may be taken out of it.
        path: the ``.onnx`` file.
        check: that it is valid ONNX.
        keep: leave the model as it is, at the price of a copy where its weights would be taken out.

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
        if keep:
            original, model = model, onnx.ModelProto()
            model.CopyFrom(original)
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


def identity_of_data(path: Path) -> tuple[int, ...]:
    """Tells the file of a model's weights from others, without reading gigabytes; empty where there is none.

    A file keeps its identity when it is moved on its file system.
    """
    data = data_beside(path)
    if data is None:
        return ()
    stat = data.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
