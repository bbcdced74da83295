"""A user's own classifier: found by file path or module name, and looked at before anything is exported."""

from __future__ import annotations

import contextlib
import copy
import difflib
import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgeport_export.user_lines import user_line
from edgeport_runtime.errors import ExportError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ["build", "is_reference", "name_of", "num_outputs_of", "private_copy", "state_digest"]

_MODULE_NAME = "edgeport_users_own"


def is_reference(name: str) -> bool:
    """True for ``path/to/file.py:factory`` and ``package.module:factory``; names of architectures hold no colon."""
    return ":" in name


def name_of(reference: str) -> str:
    """What the manifest calls it: without the folders, which are the build machine's."""
    where, _, name = reference.rpartition(":")
    return f"{Path(where).name}:{name}"


def build(reference: str) -> nn.Module:
    """Import the user's code and call the factory.

    Args:
        reference: ``path/to/file.py:factory``, or ``package.module:factory`` (the current folder is searched first).

    Raises:
        InputError: if there is no such file, module or factory.
        ExportError: naming the user's line, if the code raises, or the factory gives no ``nn.Module``.
    """
    where, _, name = reference.rpartition(":")
    if not where or not name:
        raise InputError(f"{reference!r} names no factory; give path/to/file.py:factory or package.module:factory")
    path = Path(where)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise InputError(f"{where} does not exist; give path/to/file.py:factory")
    with _importable(path.resolve().parent if is_file else Path.cwd()):
        module = _import(path if is_file else where, reference)
        factory = getattr(module, name, None)
        if not callable(factory):
            raise InputError(f"{where} has no callable {name!r}{_closest(name, module)}")
        try:
            made = factory()
        except Exception as error:
            raise ExportError(
                f"{reference}: calling {name}() raises {_say(error)}; a factory must take no arguments"
            ) from error
    if not isinstance(made, nn.Module):
        raise ExportError(f"{reference}: {name}() gives {type(made).__name__}, not a torch.nn.Module")
    return made


def private_copy(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in float32 and evaluation mode, so that the user's own module stays as it is.

    Raises:
        ExportError: if the module cannot be copied.
    """
    try:
        return copy.deepcopy(module).to("cpu", torch.float32).eval().requires_grad_(False)
    except Exception as error:
        raise ExportError(f"the module cannot be copied to the CPU in float32: {_say(error)}") from error


def num_outputs_of(module: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """K: what the module gives for a batch of two is (2, K).

    Raises:
        ExportError: naming the user's line if the module raises, or what it gives instead.
    """
    try:
        with torch.no_grad():
            output: Any = module(torch.zeros(2, *input_shape))
    except Exception as error:
        raise ExportError(
            f"the module raises on an input of shape {(2, *input_shape)}: {_say(error)}; "
            "set --image-size and --channels to what it takes"
        ) from error
    if not isinstance(output, torch.Tensor):
        raise ExportError(
            f"the module gives {type(output).__name__}, not a tensor of logits (batch, K); "
            "wrap it in a module that returns one"
        )
    if output.ndim != 2 or output.shape[0] != 2:
        raise ExportError(f"the module gives shape {tuple(output.shape)} for a batch of 2, not (2, K)")
    if output.dtype != torch.float32:
        raise ExportError(f"the module gives {output.dtype}, not torch.float32")
    return output.shape[1]


def state_digest(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of the module's state, in its order."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _import(where: Path | str, reference: str) -> ModuleType:
    try:
        return _import_file(where) if isinstance(where, Path) else importlib.import_module(where)
    except Exception as error:
        is_theirs_missing = isinstance(error, ModuleNotFoundError) and isinstance(where, str)
        if is_theirs_missing and f"{where}.".startswith(f"{getattr(error, 'name', None)}."):
            raise InputError(f"{reference}: {error}; give path/to/file.py:factory or package.module:factory") from None
        raise ExportError(f"{reference}: importing raises {_say(error)}") from error


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_MODULE_NAME, path.resolve())
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE_NAME] = module  # dataclasses and pickle look a class's module up there
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _closest(name: str, module: ModuleType) -> str:
    names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    closest = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return f"; closest: {', '.join(closest)}" if closest else ""


def _say(error: Exception) -> str:
    reason = str(error).strip().splitlines() or [""]
    where = user_line(error)
    return f"{type(error).__name__}: {reason[0]}" + (f" (at {where})" if where else "")
