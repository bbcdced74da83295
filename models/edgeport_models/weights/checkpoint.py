"""Reads a file into a flat state dict; nothing in the file is executed."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgeport_models.weights.entries import Chosen, choose
from edgeport_models.weights.inert import SAFE_GLOBALS
from edgeport_models.weights.keys import unwrapped
from edgeport_models.weights.shards import INDEX_SUFFIX, read_index
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    import os

__all__ = ["load_checkpoint", "open_checkpoint"]

_TORCH_SUFFIXES = (".pth", ".pt", ".th", ".bin", ".ckpt", ".tar")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MAX_NPZ_BYTES = 8 * 2**30  # unpacked: three times the largest published file


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a checkpoint's weights onto the CPU, without what wrappers such as DataParallel put before every key.

    Args:
        path: as of ``open_checkpoint``, which also raises the errors.
    """
    return unwrapped(open_checkpoint(path).state)


def open_checkpoint(path: str | os.PathLike[str], *, key: str | None = None) -> Chosen:
    """Read a checkpoint onto the CPU, and choose the weights among what it holds.

    Args:
        path: ``.pth``, ``.pt``, ``.th``, ``.bin``, ``.ckpt`` or ``.pth.tar`` as ``torch.save`` and Lightning write
            them, ``.safetensors`` or its ``.safetensors.index.json``, or ``.npz``.
        key: of the entry that holds the weights, such as ``model_ema``; None follows the convention of training
            scripts.

    Returns:
        The weights with their keys as they are, and the entry they come from.

    Raises:
        WeightsError: if the file is missing, damaged, holds code or no weights, or is of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"weights {path} {'is a folder' if path.is_dir() else 'does not exist'}; give a file")
    if path.stat().st_size == 0:
        raise WeightsError(f"weights {path} is empty (0 bytes)")
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise WeightsError(f"weights {path} is a Git LFS pointer, not the weights themselves; run git lfs pull")
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
    return choose(content, key=key, source=str(path))


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
        # Memory mapping exists for the zip format only; older files are plain pickles.
        with torch.serialization.safe_globals(list(SAFE_GLOBALS)):
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
