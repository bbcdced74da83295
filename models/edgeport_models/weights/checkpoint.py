"""Reads a file into a flat state dict; nothing in the file is executed."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgeport_models.weights.shards import INDEX_SUFFIX, read_index
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    import os

__all__ = ["load_checkpoint"]

_TORCH_SUFFIXES = (".pth", ".pt", ".th", ".bin", ".ckpt")
# Averaged weights before the last ones, because they are what training evaluates.
_WRAPPER_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PARALLEL_PREFIX = "module."
_AVERAGE_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_MAX_NPZ_BYTES = 8 * 2**30  # unpacked: three times the largest published file


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a checkpoint onto the CPU.

    An entry ``state_dict`` or ``model`` around the tensors (``state_dict_ema`` or ``model_ema`` in its place, if there
    is one), and a ``module.`` before every key (left by DataParallel and averaging), are removed.

    Args:
        path: ``.pth``, ``.pt``, ``.th``, ``.bin`` or ``.ckpt`` as ``torch.save`` and Lightning write them,
            ``.safetensors`` or its ``.safetensors.index.json``, or ``.npz``.

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
    elif path.name.lower().endswith(INDEX_SUFFIX):
        content = _read_shards(path)
    elif suffix == ".npz":
        content = _read_npz(path)
    elif suffix in _TORCH_SUFFIXES:
        content = _read_torch(path)
    else:
        suffixes = ", ".join((*_TORCH_SUFFIXES, ".npz", INDEX_SUFFIX))
        raise WeightsError(f"weights {path}: the file name must end in {suffixes} or .safetensors, not {suffix!r}")
    return _unwrap(content, path)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"weights {path} is not a safetensors file, or is damaged: {error}") from None


def _read_shards(index: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    shard_of = read_index(index)
    for name in sorted(set(shard_of.values())):
        shard = index.with_name(name)
        if not shard.is_file():
            raise WeightsError(f"weights {index} lists the shard {name}, which is not beside it; copy all shards")
        tensors = _read_safetensors(shard)
        keys = [key for key, file in shard_of.items() if file == name]
        lacking = [key for key in keys if key not in tensors]
        if lacking:
            raise WeightsError(f"weights {index}: the shard {name} lacks {', '.join(lacking[:5])}; copy it again")
        state.update((key, tensors[key]) for key in keys)
    return state


def _read_npz(path: Path) -> dict[str, torch.Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MAX_NPZ_BYTES:
            raise WeightsError(f"weights {path} unpacks to {size} bytes; at most {_MAX_NPZ_BYTES} are accepted")
        with np.load(path, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    except WeightsError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged archive raises anything: BadZipFile, zlib.error, EOFError, ...
        if "allow_pickle" in str(error):
            raise WeightsError(
                f"weights {path} holds Python objects besides arrays; none of it was run; save arrays of numbers only"
            ) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"weights {path} is not an .npz file of numbers, or is damaged ({reason})") from None


def _read_torch(path: Path) -> Any:
    try:
        # Memory mapping exists for the zip format only; older files are plain pickles. Training scripts of torchvision
        # and timm save their options beside the weights, as a Namespace: attributes and no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            name = re.search(r"GLOBAL ([\w.]+)", str(error))
            raise WeightsError(
                f"weights {path} holds Python objects besides tensors{f' ({name[1]})' if name else ''}, or is damaged; "
                "none of it was run; save model.state_dict() instead (for a Lightning .ckpt its entry state_dict), "
                "or write .safetensors"
            ) from None
        raise WeightsError(f"weights {path} is not a PyTorch checkpoint, or is damaged") from None
    except Exception as error:  # noqa: BLE001 - a damaged pickle raises anything: struct.error, AssertionError, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"weights {path} is not a PyTorch checkpoint, or is damaged ({reason})") from None


def _unwrap(content: Any, path: Path) -> dict[str, torch.Tensor]:
    if isinstance(content, Mapping):
        wrapped = (content[key] for key in _WRAPPER_KEYS if isinstance(content.get(key), Mapping))
        content = next(wrapped, content)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"weights {path} holds no state dict; save model.state_dict()")
    others = [str(key) for key, value in content.items() if not _is_plain(value)]
    if others:
        raise WeightsError(
            f"weights {path} holds entries that are not plain tensors ({', '.join(others[:5])}); "
            "save model.state_dict()"
        )
    state = {str(key): value for key, value in content.items() if key != _AVERAGE_COUNTER}
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
