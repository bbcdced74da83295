"""A user's own classifier: found by file path or module name, and copied."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgeport_export.source.unwrap import check_module, copy_bare
from edgeport_export.user_lines import say_error
from edgeport_runtime.errors import ExportError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

__all__ = ["build", "is_reference", "name_of", "private_copy", "state_digest"]

_MODULE_NAME = "edgeport_users_own"


def is_reference(name: str) -> bool:
    """True for ``path/to/file.py:factory`` and ``package.module:factory``; names of architectures hold no colon."""
    return ":" in name


def name_of(reference: str) -> str:
    """What the manifest calls it: without the folders, which are the build machine's."""
    where, _, name = reference.rpartition(":")
    return f"{Path(where).name}:{name}"


def build(reference: str, *, num_classes: int | None = None) -> nn.Module:
    """Import the user's code and call the factory.

    Args:
        reference: ``path/to/file.py:factory``, or ``package.module:factory`` (the current folder is searched first). A
            factory may also be a finished module.
        num_classes: passed on where the factory takes an argument of that name; None leaves it to its default.

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
        try:
            factory = getattr(module, name, None)
        except Exception as error:  # of packages that import when they are asked
            raise ExportError(
                f"{reference}: looking {name} up raises {say_error(error)}; install what it needs, or name another"
            ) from error
        if isinstance(factory, nn.Module):
            return factory
        if not callable(factory):
            raise InputError(f"{where} has no callable {name!r}{_closest(name, module)}")
        options = {} if num_classes is None or not _takes(factory, "num_classes") else {"num_classes": num_classes}
        try:
            made = factory(**options)
        except (Exception, SystemExit) as error:
            raise ExportError(
                f"{reference}: calling {name}() raises {say_error(error)}{_remedy(factory, name, options)}"
            ) from error
    if not isinstance(made, nn.Module):
        raise ExportError(f"{reference}: {name}() gives {type(made).__name__}, not a torch.nn.Module")
    return made


def private_copy(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """A copy on the CPU, in float32 and evaluation mode, so that the user's own module stays as it is.

    Returns:
        The copy, bare of what others wrap a module in, and notes on what was taken off.

    Raises:
        ExportError: if the module cannot be copied, or is not the float32 network itself.
    """
    check_module(module)
    try:
        bare, notes = copy_bare(module)
        return bare.to("cpu", torch.float32).eval().requires_grad_(False), notes
    except Exception as error:
        raise ExportError(
            f"the module cannot be copied to the CPU in float32: {say_error(error)}; "
            "keep files, locks and generators out of its attributes"
        ) from error


def state_digest(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of the module's state, in its order."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _takes(factory: Callable[..., object], name: str) -> bool:
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # of some that are not written in Python
        return False
    return name in parameters


def _remedy(factory: Callable[..., object], name: str, options: Mapping[str, object]) -> str:
    """What gives the factory the arguments that it lacks; nothing if it lacks none, as the error is then its own."""
    try:
        inspect.signature(factory).bind(**options)
    except ValueError:
        return ""
    except TypeError:
        if not options and _takes_only_num_classes(factory):
            return "; add --num-classes N"
        return f"; name a function that takes no arguments: def make(): return {name}(...)"
    return ""


def _takes_only_num_classes(factory: Callable[..., object]) -> bool:
    try:
        inspect.signature(factory).bind(num_classes=1)
    except TypeError:
        return False
    return True


def _import(where: Path | str, reference: str) -> ModuleType:
    try:
        return _import_file(where) if isinstance(where, Path) else importlib.import_module(where)
    except (Exception, SystemExit) as error:
        is_theirs_missing = isinstance(error, ModuleNotFoundError) and isinstance(where, str)
        if is_theirs_missing and f"{where}.".startswith(f"{getattr(error, 'name', None)}."):
            raise InputError(f"{reference}: {error}; give path/to/file.py:factory or package.module:factory") from None
        raise ExportError(f"{reference}: importing raises {say_error(error)}") from error


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
