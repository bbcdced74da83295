"""Fits a state dict to a module; every difference is listed, and none is tolerated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgeport_models.weights.adapt import image_size_of
from edgeport_models.weights.keys import COUNTER_SUFFIX, match_keys
from edgeport_models.zoo import ALIASES, ARCHITECTURES
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from edgeport_models.spec import ModelSpec

_MAX_LINES = 20

__all__ = ["check_numbers", "fit_checkpoint", "fit_own", "num_classes_of"]


def num_classes_of(state: Mapping[str, torch.Tensor], spec: ModelSpec) -> int | None:
    """Rows of the head's weight in a state dict; None if it holds no such head."""
    weight = state.get(f"{spec.head}.weight")
    return None if weight is None or weight.ndim != 2 else weight.shape[0]


def fit_checkpoint(module: nn.Module, state: Mapping[str, torch.Tensor], *, spec: ModelSpec, source: str) -> list[str]:
    """Copy a state dict into a module, in float32.

    Args:
        module: receives the values.
        state: key to tensor, as ``load_checkpoint`` gives.
        spec: the module's architecture.
        source: the file, for messages.

    Returns:
        The keys that were left out because only training uses them (``spec.training_only``).

    Raises:
        WeightsError: listing each key that is missing, unexpected, of another shape, not floating-point, or not finite.
    """
    wanted = {key: value for key, value in module.state_dict().items() if not key.endswith(COUNTER_SUFFIX)}
    dropped = [key for key in state if key.startswith(spec.training_only) and key not in wanted]
    given = {k: v for k, v in state.items() if not k.endswith(COUNTER_SUFFIX) and k not in dropped}
    is_equal = given.keys() == wanted.keys()
    if not is_equal or _reshaped(given, wanted):
        fitting = () if is_equal else _architectures_with(given)
        hint = f"; these keys are those of {', '.join(fitting)}" if fitting else ""
        raise WeightsError(f"weights {source} do not fit {spec.name}: {_differences(given, wanted, hint=hint)}")
    coded = [
        f"{key} ({str(given[key].dtype).removeprefix('torch.')})"
        for key in wanted
        if not given[key].is_floating_point()
    ]
    if coded:
        raise WeightsError(
            f"weights {source} are not floating-point numbers in: {', '.join(coded)}; "
            "give the weights from before quantization"
        )
    values = {key: given[key].to(torch.float32) for key in wanted}
    broken = [key for key, value in values.items() if not torch.isfinite(value).all()]
    if broken:
        raise WeightsError(f"weights {source} hold NaN or infinite values in: {', '.join(broken)}")
    module.load_state_dict(values, strict=False)
    return dropped


def fit_own(module: nn.Module, state: Mapping[str, torch.Tensor], *, name: str, source: str) -> str | None:
    """Copy a state dict into a user's own module, with the keys that ``match_keys`` finds for it.

    Args:
        module: receives the values.
        state: key to tensor, as ``open_checkpoint`` gives.
        name: of the module, for messages.
        source: the file, for messages.

    Returns:
        What was left out of the weights, in words; None if nothing was.

    Raises:
        WeightsError: listing each key that is missing, unexpected, of another shape, not floating-point, or NaN.
    """
    wanted = module.state_dict()
    matched, note = match_keys(state, wanted, source=source)
    coded = [
        f"{key} ({str(value.dtype).removeprefix('torch.')})"
        for key, value in matched.items()
        if key in wanted and wanted[key].is_floating_point() and not value.is_floating_point()
    ]
    if coded:
        raise WeightsError(
            f"weights {source} are not floating-point numbers, as those of {name} are, in: {', '.join(coded)}; "
            "give the weights from before quantization"
        )
    check_numbers({key: value for key, value in matched.items() if key in wanted}, source=source)
    try:
        module.load_state_dict(matched, strict=True)
    except RuntimeError as error:  # in its own lines, each with all keys of a kind
        told = _differences(matched, wanted) if matched.keys() != wanted.keys() or _reshaped(matched, wanted) else error
        raise WeightsError(f"weights {source} do not fit {name}: {told}") from None
    return note


def _differences(given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], *, hint: str = "") -> str:
    """How many keys differ, and the first of them, a line each."""
    given, wanted = ({k: v for k, v in d.items() if not k.endswith(COUNTER_SUFFIX)} for d in (given, wanted))
    missing = [f"missing: {key} {tuple(wanted[key].shape)}" for key in wanted if key not in given]
    unexpected = [f"unexpected: {key} {tuple(given[key].shape)}" for key in given if key not in wanted]
    reshaped = [
        f"other shape: {key} is {tuple(given[key].shape)}, the model has {tuple(wanted[key].shape)}"
        for key in _reshaped(given, wanted)
    ]
    counts = f"{len(missing)} keys missing, {len(unexpected)} unexpected, {len(reshaped)} of another shape"
    return f"{counts}{hint}{_listed([*reshaped, *missing, *unexpected])}"


def _reshaped(given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> list[str]:
    return [key for key in wanted if key in given and given[key].shape != wanted[key].shape]


def _listed(lines: list[str]) -> str:
    """A line each, the first twenty; the rest is as many again of the same kind."""
    left = len(lines) - _MAX_LINES
    return "".join(f"\n  {line}" for line in [*lines[:_MAX_LINES], *([f"and {left} more"] if left > 0 else [])])


def check_numbers(state: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Refuse a state dict that holds NaN.

    Raises:
        WeightsError: listing the keys.
    """
    broken = [key for key, value in state.items() if torch.isnan(value).any()]
    if broken:
        raise WeightsError(
            f"weights {source} hold NaN in: {', '.join(broken)}; give those from before the training diverged"
        )


def _architectures_with(given: Mapping[str, torch.Tensor]) -> list[str]:
    """Architectures that have just these keys and shapes, the number of classes aside."""
    found = []
    with torch.device("meta"):
        for name, spec in ARCHITECTURES.items():
            if name in ALIASES:
                continue
            try:
                own = spec.build(num_classes=num_classes_of(given, spec), image_size=image_size_of(given)).state_dict()
            except ValueError:  # it does not take images of that size
                continue
            shapes = {key: value.shape for key, value in own.items() if not key.endswith(COUNTER_SUFFIX)}
            if shapes == {key: value.shape for key, value in given.items()}:
                found.append(name)
    return found
