"""Which keys of a state dict are the network's: what wrappers put before them, and what only training has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import torch

__all__ = [
    "COUNTER_SUFFIX",
    "Matched",
    "is_average",
    "is_of_training",
    "match_keys",
    "unwrapped",
    "without_inner_wrappers",
    "without_training",
]

COUNTER_SUFFIX = "num_batches_tracked"
"""A counter of training steps: absent from old checkpoints, and without effect on the output."""

# What DataParallel, torch.compile, and the modules of Lightning and training scripts put before every key.
_WRAPPERS = ("module", "_orig_mod", "model", "net", "network", "backbone")
# What PyTorch's own wrappers leave also within a key, where only a part of the network was wrapped.
_INNER_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})

_OF_AVERAGE = "of averaged weights, which --weights-key takes"
_OF_TRAINING = {
    "of a loss": re.compile(r"(?:\w+_)?(?:criterion|criteria|loss|losses)(?:_fn|_func|_function)?\d*"),
    "of an optimizer": re.compile(r"(?:\w+_)?(?:optim|optimizer)s?\d*"),
    "of a metric": re.compile(r"(?:\w+_)?(?:metrics?|accuracy|acc)\d*"),
    _OF_AVERAGE: re.compile(r"(?:\w+_)?(?:ema|n_averaged)(?:_\w+)?"),
}


class Matched(NamedTuple):
    """A state dict under the keys of a network.

    Attributes:
        state: what fits has the network's keys; what does not has its own.
        note: what was left out, in words; None if nothing was.
    """

    state: dict[str, torch.Tensor]
    note: str | None


def is_average(name: str) -> bool:
    """Whether a name is one that averaged weights have."""
    return _OF_TRAINING[_OF_AVERAGE].fullmatch(name) is not None


def is_of_training(name: str) -> bool:
    """Whether a name is one that the state of a loss, an optimizer or a metric has, which is no network's."""
    return not is_average(name) and _kind_of(name) is not None


def unwrapped(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without what wrappers put before every key."""
    state = dict(state)
    while True:
        first = {key.partition(".")[0] for key in state}
        if len(first) != 1 or not first <= set(_WRAPPERS) or not all("." in key for key in state):
            return state
        state = {key.partition(".")[2]: value for key, value in state.items()}


def without_inner_wrappers(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without what PyTorch's wrappers leave anywhere in a key, such as DataParallel around a network's features."""
    bare = {_bare(key): value for key, value in state.items()}
    return bare if len(bare) == len(state) else dict(state)


def without_training(state: Mapping[str, torch.Tensor], wanted: Collection[str] = ()) -> Matched:
    """Leave out the keys of a loss, an optimizer, a metric, or averaged weights beside the network's.

    Args:
        state: key to tensor.
        wanted: the network's keys, which stay whatever their names.
    """
    parts = {key: _part_of(key) for key in state if key not in wanted}
    kinds = {part: kind for part in parts.values() if (kind := _kind_of(part.rpartition(".")[2])) is not None}
    kept = {key: value for key, value in state.items() if parts.get(key) not in kinds}
    if not kinds or not kept:
        return Matched(dict(state), None)
    told = ", ".join(f"{part} ({kind})" for part, kind in kinds.items())
    return Matched(kept, f"left out of the weights, not the network's: {told}")


def match_keys(state: Mapping[str, torch.Tensor], wanted: Collection[str], *, source: str) -> Matched:
    """Bring a state dict to a network's keys, by taking off what wrappers put before them.

    The keys stay as they are where they fit; a prefix of any name is taken off where the whole network stands under
    it, and nothing is where it does not. Keys of a loss, an optimizer, a metric or averaged weights are then left out.

    Args:
        state: key to tensor.
        wanted: the network's keys.
        source: the checkpoint, for messages.

    Raises:
        WeightsError: if the network stands under several prefixes, none of which is a wrapper's.
    """
    required = [key for key in wanted if not key.endswith(COUNTER_SUFFIX)]
    if not required or all(key in state for key in required):
        return without_training(state, wanted)
    bare_state, bare_wanted = ({_bare(key): key for key in keys} for keys in (state, wanted))
    if len(bare_state) == len(state) and len(bare_wanted) == len(wanted):
        prefixes = _prefixes(bare_state, [_bare(key) for key in required])
        if prefixes:
            prefix = _choose(prefixes, source)
            names = {bare_state[prefix + k]: name for k, name in bare_wanted.items() if prefix + k in bare_state}
            return without_training({names.get(key, key): value for key, value in state.items()}, wanted)
    rest = without_training(state, wanted)  # does not fit as it is; a hook of the module may know these keys
    return Matched(unwrapped(rest.state), rest.note)


def _bare(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _INNER_WRAPPERS)


def _prefixes(keys: Collection[str], required: list[str]) -> list[str]:
    """What stands before all of the required keys, with its last dot; "" if nothing does."""
    longest = max(required, key=len)
    found = [key.removesuffix(longest) for key in keys if key == longest or key.endswith(f".{longest}")]
    return [prefix for prefix in found if all(prefix + key in keys for key in required)]


def _choose(prefixes: list[str], source: str) -> str:
    """The only prefix; else the only one that is not of averaged weights, or that wrappers leave."""
    parts = {prefix: prefix.rstrip(".").split(".") for prefix in prefixes}
    plain = [prefix for prefix in prefixes if not any(map(is_average, parts[prefix]))]
    wrapped = [prefix for prefix in plain if prefix == "" or set(parts[prefix]) <= set(_WRAPPERS)]
    for candidates in (prefixes, plain, wrapped):
        if len(candidates) == 1:
            return candidates[0]
    names = ", ".join(prefix.rstrip(".") for prefix in prefixes)
    raise WeightsError(f"weights {source} hold the network several times, under {names}; choose with --weights-key")


def _part_of(key: str) -> str:
    """The part that a key belongs to: its first name that is no wrapper's, with the wrappers before it."""
    names = key.split(".")
    num_wrappers = next((i for i, name in enumerate(names) if name not in _WRAPPERS), 0)
    return ".".join(names[: num_wrappers + 1])


def _kind_of(name: str) -> str | None:
    return next((kind for kind, pattern in _OF_TRAINING.items() if pattern.fullmatch(name)), None)
