"""From a file to a flat state dict; nothing in the file is executed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    import os

__all__ = ["load_checkpoint"]

_TORCH_SUFFIXES = (".pth", ".pt", ".th")
_WRAPPER_KEY = "state_dict"
_PARALLEL_PREFIX = "module."


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a checkpoint onto the CPU.

    A ``state_dict`` entry around the tensors, and a ``module.`` before every key (left by DataParallel), are removed.

    Args:
        path: ``.pth``, ``.pt`` or ``.th`` as ``torch.save`` writes them, or ``.safetensors``.

    Returns:
        Key to tensor.

    Raises:
        WeightsError: if the file is missing, damaged, holds more than tensors, or is of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"weights {path} {'is a folder' if path.is_dir() else 'does not exist'}; give a file")
    if path.stat().st_size == 0:
        raise WeightsError(f"weights {path} is empty (0 bytes)")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        content: Any = _read_safetensors(path)
    elif suffix in _TORCH_SUFFIXES:
        content = _read_torch(path)
    else:
        raise WeightsError(f"weights {path}: files end in {', '.join(_TORCH_SUFFIXES)} or .safetensors, not {suffix!r}")
    return _unwrap(content, path)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"weights {path} is not a safetensors file, or is damaged: {error}") from None


def _read_torch(path: Path) -> Any:
    try:
        # Memory mapping exists for the zip format only; older files are plain pickles.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise WeightsError(
                f"weights {path} holds Python objects besides tensors, or is damaged; nothing of it was run. "
                "Save model.state_dict() instead, or write .safetensors"
            ) from None
        raise WeightsError(f"weights {path} is not a PyTorch checkpoint, or is damaged") from None
    except Exception as error:  # noqa: BLE001 - a damaged pickle raises anything: struct.error, AssertionError, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"weights {path} is not a PyTorch checkpoint, or is damaged ({reason})") from None


def _unwrap(content: Any, path: Path) -> dict[str, torch.Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get(_WRAPPER_KEY), Mapping):
        content = content[_WRAPPER_KEY]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"weights {path} holds no state dict; save model.state_dict()")
    others = [str(key) for key, value in content.items() if not _is_plain(value)]
    if others:
        raise WeightsError(
            f"weights {path} holds entries that are not plain tensors ({', '.join(others[:5])}); "
            "save model.state_dict()"
        )
    state = {str(key): value for key, value in content.items()}
    if all(key.startswith(_PARALLEL_PREFIX) for key in state):
        state = {key.removeprefix(_PARALLEL_PREFIX): value for key, value in state.items()}
    return state


def _is_plain(value: Any) -> bool:
    """A dense tensor that has its values: not sparse, nested, or saved from the meta device."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and not value.is_nested
        and value.device.type == "cpu"
    )
