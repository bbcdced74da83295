"""What people wrap a module in: taken off, folded into its weights, or refused with what to do instead."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from edgeport_runtime.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["check_module", "copy_bare", "fold"]

_COMPILED = "_orig_mod"  # where torch.compile keeps the module
_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.ao.nn.sparse", "bitsandbytes")


def check_module(module: nn.Module) -> None:
    """Refuse modules whose float32 network EdgePort cannot see.

    Raises:
        ExportError: naming the submodule, and what to give instead.
    """
    for name, child in module.named_modules():
        if _refusal(child) is not None:
            raise ExportError(f"{_where(name, child)} {_refusal(child)}")


def copy_bare(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """A deep copy without the wrappers of torch.compile, DataParallel and DistributedDataParallel, wherever they are.

    Returns:
        The copy, which loads weights with and without the wrappers' prefixes, and what was taken off.
    """
    # PyTorch refuses to copy a tensor with a history: weight_norm and its like keep one, caches of a first call others.
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for child in module.modules()
        for value in _tensors_in(vars(child))
        if not value.is_leaf
    }
    notes = []
    for name, child in reversed(list(module.named_modules())):  # what is inside comes first
        found = _wrapper(child)
        if found is not None:
            kind, prefix = found
            bare = copy.deepcopy(getattr(child, prefix), memo)
            bare.register_load_state_dict_pre_hook(_without(prefix))
            memo[id(child)] = bare
            notes.append(f"{kind} was taken off {name or 'the module'}")
    return copy.deepcopy(module, memo), notes[::-1]


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Tensors of attributes, in whatever dictionaries, lists and tuples they are kept."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(inner)


def fold(module: nn.Module) -> list[str]:
    """Put weight norm, spectral norm, pruning and other parametrizations into the weights, in place.

    Returns:
        What was folded, and where.
    """
    notes = []
    for name, child in list(module.named_modules()):
        folded = _fold_hooks(child)
        if parametrize.is_parametrized(child):
            folded += _fold_parametrizations(child)
        notes += [f"{kind} was folded into {parameter} of {_where(name, child)}" for kind, parameter in folded]
    return notes


def _fold_hooks(child: nn.Module) -> list[tuple[str, str]]:
    """The older forms, which compute a weight before each call."""
    folded = []
    for hook in list(child._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(child, hook.name)
            folded.append(("weight_norm", hook.name))
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(child, hook.name)
            folded.append(("spectral_norm", hook.name))
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(child, hook._tensor_name)  # type: ignore[no-untyped-call]
            folded.append(("pruning", hook._tensor_name))
    return folded


def _fold_parametrizations(child: nn.Module) -> list[tuple[str, str]]:
    """The newer forms. PyTorch's own removal would change the class, which the user's module has as well."""
    parametrizations: Any = child.parametrizations
    folded = [
        (", ".join(type(one).__name__.strip("_") for one in chain), name) for name, chain in parametrizations.items()
    ]
    values = {name: getattr(child, name).detach().clone() for name in parametrizations}
    child.__class__ = type(child).__bases__[0]
    del child.parametrizations
    for name, value in values.items():
        setattr(child, name, nn.Parameter(value, requires_grad=False))
    return folded


def _wrapper(module: nn.Module) -> tuple[str, str] | None:
    """What a module is wrapped in, and the name of what is inside."""
    if _COMPILED in module._modules:
        return "torch.compile", _COMPILED
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return type(module).__name__, "module"
    return None


def _without(prefix: str) -> Callable[..., None]:
    """A hook of load_state_dict that takes keys as the wrapped module writes them, too."""

    def rename(_module: nn.Module, state: dict[str, Any], place: str, *_: Any) -> None:
        wrapped = f"{place}{prefix}."
        for key in [key for key in state if key.startswith(wrapped)]:
            state[place + key.removeprefix(wrapped)] = state.pop(key)

    return rename


def _refusal(module: nn.Module) -> str | None:
    """Why a module cannot be taken as it is, and what to give instead."""
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        return (
            "is TorchScript, which has no Python code to trace; give the network as it was before torch.jit, with its "
            "weights: network.load_state_dict(torch.jit.load(FILE).state_dict())"
        )
    if kind.__module__.startswith(_QUANTIZED):
        return "is already quantized; give the network in float32, and let --quantize int8 quantize it"
    if {"FakeQuantizeBase", "ObserverBase"} & {base.__name__ for base in kind.__mro__} or "FakeQuant" in kind.__name__:
        return (
            "imitates quantization (QAT); give the network as it was before prepare_qat, with the trained weights "
            "(network.load_state_dict(trained.state_dict(), strict=False), and for a layer that was fused with its "
            "BatchNorm network.set_submodule(NAME, layer.to_float())), and let --quantize int8 quantize it"
        )
    own = [value for value in (*module._parameters.values(), *module._buffers.values()) if value is not None]
    if any(torch.nn.parameter.is_lazy(value) for value in own):
        return "has parameters without a shape; in the factory, run the network once on an image and load its weights"
    if any(value.is_meta for value in own):
        return "has parameters without values (device meta); in the factory, build it on the CPU and load its weights"
    return None


def _where(name: str, module: nn.Module) -> str:
    return f"{name} ({type(module).__name__})" if name else f"the module ({type(module).__name__})"
