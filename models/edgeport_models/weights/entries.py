"""Which entry of a checkpoint holds the weights: training scripts save more beside them, and sometimes two of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from edgeport_models.weights.keys import is_average, is_of_training
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Chosen", "choose"]

# The first of these is taken where a file has several: averaged weights under the names by which timm's
# load_state_dict takes them before the last ones, and torchvision's script evaluates them; then the last ones.
_CONVENTION = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
_AVERAGE_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_NO_WEIGHTS = re.compile(r"(?:\w+_)?(?:optimizers?|schedulers?|scaler|amp|rng)(?:_\w+)?")
_MAX_DEPTH = 8

_Path = tuple[str, ...]


class Chosen(NamedTuple):
    """The weights of a checkpoint.

    Attributes:
        state: key to tensor.
        key: the entry that they come from, its names joined by dots; None where the file holds no other.
        note: which entry was taken and which others there are, in words; None where there was no choice.
    """

    state: dict[str, torch.Tensor]
    key: str | None
    note: str | None


def choose(content: Any, *, key: str | None, source: str) -> Chosen:
    """The weights among what a file holds.

    Args:
        content: of the file.
        key: the entry to take, or what stands before the keys to take; None follows the convention.
        source: the file, for messages.

    Raises:
        WeightsError: if there are none, several of which none is conventional, or none under that key.
    """
    found = _find(content)
    if not found:
        raise WeightsError(f"weights {source} holds no state dict; save model.state_dict()")
    names = [_join(path) for path in found]
    shown = f"under {', '.join(names)}" if any(names) else "at its top level; omit --weights-key"
    if key is not None:
        state = next((found[path] for path in found if _join(path) == key), None) or _below(found, key)
        if not state:
            raise WeightsError(f"weights {source} has nothing under --weights-key {key}; it holds weights {shown}")
        return Chosen(_tensors(state, source), key, None)
    path = _preferred(list(found))
    if path is None:
        raise WeightsError(f"weights {source} holds weights {shown}; choose with --weights-key")
    state, name = _tensors(found[path], source), _join(path)
    if len(found) == 1:
        return Chosen(state, None, None)
    others = ", ".join(other for other in names if other != name)
    return Chosen(state, name, f"weights taken from {name}, not from {others} (--weights-key chooses)")


def _find(content: Any) -> dict[_Path, Mapping[Any, Any]]:
    """Every mapping of keys to tensors, by its path; those that hold other things too only where there is no better."""
    found: dict[_Path, Mapping[Any, Any]] = {}
    _walk(content, (), found, set())
    pure = {path: state for path, state in found.items() if all(isinstance(v, torch.Tensor) for v in state.values())}
    return pure or found


def _walk(content: Any, path: _Path, found: dict[_Path, Mapping[Any, Any]], seen: set[int]) -> None:
    # A file can hold a mapping that contains itself, or the same one very often.
    if not isinstance(content, Mapping) or len(path) > _MAX_DEPTH or id(content) in seen:
        return
    seen.add(id(content))
    num_found = len(found)
    for name, child in content.items():
        if isinstance(name, str) and not is_of_training(name) and not _NO_WEIGHTS.fullmatch(name):
            _walk(child, (*path, name), found, seen)
    is_state = any(isinstance(k, str) and isinstance(v, torch.Tensor) and v.ndim > 0 for k, v in content.items())
    if is_state and len(found) == num_found:
        found[path] = content


def _preferred(paths: Sequence[_Path]) -> _Path | None:
    """The path that convention chooses, or the only one that is not of averaged weights; None if neither is clear."""
    if len(paths) == 1:
        return paths[0]
    names = {path[0]: None for path in paths}
    plain = [name for name in names if not is_average(name)] or list(names)
    name = next((name for name in _CONVENTION if name in names), plain[0] if len(plain) == 1 else None)
    if name is None:
        return None
    rest = _preferred([path[1:] for path in paths if path[0] == name])
    return None if rest is None else (name, *rest)


def _below(found: Mapping[_Path, Mapping[Any, Any]], key: str) -> dict[str, Any]:
    """The tensors whose keys begin with what ``key`` says after the path of their state dict, without that."""
    for path, state in found.items():
        rest = key.removeprefix(f"{_join(path)}.") if path else key
        start = f"{rest}."
        below = {str(k).removeprefix(start): value for k, value in state.items() if str(k).startswith(start)}
        if below and (not path or rest != key):
            return below
    return {}


def _join(path: _Path) -> str:
    return ".".join(path)


def _tensors(state: Mapping[Any, Any], source: str) -> dict[str, torch.Tensor]:
    others = [str(key) for key, value in state.items() if not _is_plain(value)]
    if others:
        raise WeightsError(
            f"weights {source} holds entries that are not plain tensors ({', '.join(others[:5])}); "
            "save model.state_dict()"
        )
    return {str(key): value for key, value in state.items() if key != _AVERAGE_COUNTER}


def _is_plain(value: Any) -> bool:
    """A dense tensor that has its values: not sparse, nested, or saved from the meta device."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and not value.is_nested
        and value.device.type == "cpu"
    )
