"""What a user's own module gives: of what shape, and whether it is already a probability.

Shapes: B batch, C channels, H W image, K outputs.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import deque
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgeport_export.source.own_choice import Taken, choose_output
from edgeport_export.user_lines import running_line, say_error
from edgeport_runtime.errors import ExportError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgeport_runtime.bundle.contract import Task

__all__ = ["STRONG", "Activation", "Look", "Seen", "judge_outputs", "look_at", "refuse_one_output", "task_of"]

Activation: TypeAlias = Literal["softmax", "sigmoid", "log-softmax", "log-sigmoid"]

_LAST: dict[str, Activation] = {
    "aten::_softmax": "softmax",
    "aten::sigmoid": "sigmoid",
    "aten::sigmoid_": "sigmoid",
    "aten::hardsigmoid": "sigmoid",
    "aten::_log_softmax": "log-softmax",
    "aten::log_sigmoid_forward": "log-sigmoid",
}
# What may stand behind an activation without changing what its values mean.
_LOOK_THROUGH = {
    f"aten::{name}"
    for name in (
        *("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "permute", "transpose", "t", "select"),
        *("slice", "expand", "alias", "detach", "clone", "_to_copy", "clamp", "contiguous"),
        *("nan_to_num", "flip", "index", "index_select"),
    )
}
_JOINS = {"aten::cat", "aten::stack"}  # of several heads
_NUM_RECENT = 256  # operators that are remembered, of those above
_SUM_TOLERANCE = 1e-3
STRONG = 20.0  # deviation of noise that makes logits large


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What was seen of the outputs.

    Attributes:
        num_outputs: K.
        activation: what the network ends in, None for plain logits.
        notes: what a user must know of it.
        what: gives them, in messages.
    """

    num_outputs: int
    activation: Activation | None
    notes: tuple[str, ...]
    what: str = "the module"

    @property
    def gives_probabilities(self) -> bool:
        """Whether the outputs are the task's probabilities, so that no activation must follow."""
        return self.activation in ("softmax", "sigmoid")


@dataclass(frozen=True, kw_only=True, slots=True)
class Look(Seen):
    """What was seen of a module.

    Attributes:
        module: gives the one tensor (B, K).
    """

    module: nn.Module


def look_at(
    module: nn.Module, input_shape: tuple[int, int, int], *, batch: int | None, output_name: str | None
) -> Look:
    """Run the module on random images and look at what it gives.

    Args:
        module: on the CPU, in float32 and evaluation mode.
        input_shape: C, H, W.
        batch: the fixed batch size; None runs batches of 2 and of 1.
        output_name: the tensor to take, where the module gives several.

    Raises:
        ExportError: naming the user's line if the module raises, or what it gives instead of one row per image.
        InputError: if there is no output of that name, or several could be meant.
    """
    sizes = (2, 1) if batch is None else (batch,)
    images = torch.randn(max(sizes), *input_shape, generator=torch.Generator().manual_seed(0))
    output, _ = _run(module, images)
    path, notes = choose_output(output, len(images), output_name)
    is_plain = not path and all(
        one.kind is not one.VAR_POSITIONAL for one in signature(module.forward).parameters.values()
    )
    taken = module if is_plain else Taken(module, path)  # tracing does not take forward(*args) as it is
    shapes: list[int] = []
    for size in sizes:
        output_BK, watch = _run(taken, images[:size])
        _check(output_BK, size, watch, expected=shapes[-1] if shapes else None)
        shapes.append(output_BK.shape[1])
        if size == max(sizes):
            weak_BK, found = output_BK, watch.activation_of(output_BK)
    activation, why = judge_outputs(weak_BK, found, lambda: _run(taken, images * STRONG)[0])
    notes += why
    return Look(module=taken, num_outputs=shapes[0], activation=activation, notes=tuple(notes))


def judge_outputs(
    weak_BK: torch.Tensor,
    found: Activation | None,
    strong: Callable[[], torch.Tensor],
    *,
    what: str = "the module",
) -> tuple[Activation | None, list[str]]:
    """What a network ends in: told by its last operator and confirmed by the numbers, or by the numbers alone.

    Args:
        weak_BK: outputs for noise.
        found: what the last operator says.
        strong: gives the outputs for the same noise times ``STRONG``.
        what: gives them, in messages.

    Returns:
        The activation, and what a user must know of it.

    Raises:
        ExportError: if the outputs are neither logits nor the task's probabilities.
    """
    activation, why = _find_activation(weak_BK, found, what)
    if activation is None:
        why = _question(torch.cat([weak_BK, strong()]), what)
    return activation, [why] if why else []


def task_of(look: Seen, asked: Task | None, *, name: str) -> Task:
    """The task that the module's outputs can have.

    Args:
        look: what the module gives.
        asked: the task that was asked for, None for none.
        name: of the module, for messages.

    Raises:
        InputError: naming the task to ask for, or what to change in the module.
    """
    count, activation = look.num_outputs, look.activation
    if count == 1:
        if activation in ("softmax", "log-softmax"):
            raise InputError(
                f"{name} ends in {activation} over a single output, which is the same for every image; take it out of "
                f"{look.what}, and add --task binary"
            )
        if asked == "multiclass" or (asked is None and activation != "sigmoid"):
            refuse_one_output(name)
        return asked or "binary"
    if asked == "binary":
        kind = "probabilities" if look.gives_probabilities else "logits"
        raise InputError(f"{name} gives {count} {kind}, but a binary task has one; use --task multiclass for two")
    if activation == "sigmoid" and asked != "multilabel":
        raise InputError(
            f"{name} ends in a sigmoid of each of its {count} outputs; add --task multilabel if several labels can be "
            f"true of an image, otherwise take the sigmoid out of {look.what}"
        )
    if activation in ("softmax", "log-softmax") and asked == "multilabel":
        raise InputError(
            f"{name} ends in {activation}, which decides for one of its {count} classes, but a multilabel task judges "
            f"each alone; omit --task multilabel, or take the softmax out of {look.what}"
        )
    return asked or "multiclass"


def refuse_one_output(name: str) -> NoReturn:
    """Raise InputError for a multiclass network with a single output, whose softmax is 1 for every image."""
    raise InputError(f"{name} gives one output per image, and a multiclass task needs two or more; add --task binary")


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks on while a module runs.

    Attributes:
        narrow: the first value of half precision, and the line that made it.
        squeezed: the line of the first ``squeeze()`` that took the axis of a batch of one.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.narrow: tuple[torch.dtype, str | None] | None = None
        self.squeezed: str | None = None
        self._recent: deque[tuple[str, Any, torch.Tensor]] = deque(maxlen=_NUM_RECENT)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name: str = func._schema.name
        first = result[0] if isinstance(result, tuple) and result else result
        if isinstance(first, torch.Tensor):
            if name in _LAST or name in _LOOK_THROUGH or name in _JOINS:
                self._recent.append((str(name), args[0] if args else None, first))
            if self.narrow is None and first.dtype in (torch.float16, torch.bfloat16):
                self.narrow = (first.dtype, running_line())
            if self.squeezed is None and func is torch.ops.aten.squeeze.default and args[0].shape[:1] == (1,):
                self.squeezed = running_line() or "in a library"
        return result

    def activation_of(self, output: Any) -> Activation | None:
        """What made a tensor, behind whatever only reshaped it, or joined heads that all end in the same."""
        made = next(((name, source) for name, source, result in reversed(self._recent) if result is output), None)
        if made is None:
            return None
        name, source = made
        if name in _JOINS:
            kinds = {self.activation_of(one) for one in source}
            return kinds.pop() if len(kinds) == 1 and kinds <= {"softmax", "sigmoid"} else None
        return self.activation_of(source) if name in _LOOK_THROUGH else _LAST[name]


def _run(module: nn.Module, images_BCHW: torch.Tensor) -> tuple[Any, _Watch]:
    watch = _Watch()
    try:
        with _silent(), torch.no_grad(), watch:
            output = module(images_BCHW.clone())  # a module may change its input
    except Exception as error:
        raise ExportError(
            f"the module raises on an input of shape {tuple(images_BCHW.shape)}: {say_error(error)}; "
            f"{_remedy(error, watch)}"
        ) from error
    if watch.narrow is not None:
        dtype, line = watch.narrow
        raise ExportError(
            f"the module computes in {dtype}{_at(line)}, and EdgePort compares float32; take autocast, .half() and "
            ".bfloat16() out of forward (--quantize fp16 makes a variant in half precision)"
        )
    return output, watch


def _remedy(error: Exception, watch: _Watch) -> str:
    text = str(error)
    if watch.squeezed is not None:
        return f"squeeze() takes the axis of a batch of one as well{_at(watch.squeezed)}; name the axes: flatten(1)"
    if watch.narrow is not None or any(word in text for word in ("dtype", "scalar type", "Input type")):
        return (
            "EdgePort runs it in float32; take .half(), .bfloat16() and .double() out of forward, and register "
            "constants as buffers"
        )
    if "cuda" in text.lower() or "nvidia" in text.lower():
        return "EdgePort runs it on the CPU; take .cuda() and .to('cuda') out of forward, or use x.device"
    if isinstance(error, TypeError) and "forward()" in text:
        return "EdgePort calls it with one tensor of images; give the other arguments a default"
    return "EdgePort gives images (batch, channels, height, width); set --image-size and --channels to what it takes"


def _check(output: Any, size: int, watch: _Watch, *, expected: int | None) -> None:
    """Raise ExportError if this is not one row of float32 for each image."""
    if not isinstance(output, torch.Tensor):
        raise ExportError(f"the module gives {type(output).__name__} for a batch of {size}; return a tensor always")
    if not output.is_floating_point():
        raise ExportError(
            f"the module gives {output.dtype}, not torch.float32; return the scores of the classes, before any argmax"
        )
    shape = tuple(output.shape)
    if output.ndim != 2 or shape[0] != size or (expected is not None and shape[1] != expected):
        wanted = "K" if expected is None else str(expected)
        raise ExportError(
            f"the module gives shape {shape} for a batch of {size}, not ({size}, {wanted}); "
            f"{_reshape(shape, size, watch)}"
        )
    if output.dtype != torch.float32:
        raise ExportError(f"the module gives {output.dtype}, not torch.float32; return it as x.float()")


def _reshape(shape: tuple[int, ...], size: int, watch: _Watch) -> str:
    if watch.squeezed is not None:
        return f"squeeze() takes the axis of a batch of one as well{_at(watch.squeezed)}; name the axes: flatten(1)"
    if shape == (size,):
        return "return x.reshape(-1, 1), and add --task binary"
    if len(shape) > 2 and shape[0] == size and all(side == 1 for side in shape[2:]):
        return "return x.flatten(1)"
    return "a classifier gives one row of K scores for each image"


def _find_activation(output_BK: torch.Tensor, found: Activation | None, what: str) -> tuple[Activation | None, str]:
    remedy = "take it out of forward" if what == "the module" else "export the network without it"
    sums_to_one = bool((output_BK >= 0).all()) and bool(((output_BK.sum(1) - 1).abs() < _SUM_TOLERANCE).all())
    is_probability = bool(((output_BK >= 0) & (output_BK <= 1)).all())
    if output_BK.shape[1] > 1 and sums_to_one:
        how = "it ends in softmax" if found == "softmax" else "its rows are not negative and sum to 1"
        return "softmax", f"{what} gives probabilities already ({how}); no softmax is applied to them"
    if found == "softmax" and output_BK.shape[1] > 1:
        raise ExportError(
            f"{what} ends in softmax, but what it gives for an image does not sum to 1 (another axis, or a part of "
            f"the classes); give softmax the axis dim=1, or {remedy}"
        )
    if found == "sigmoid" and is_probability:
        return found, f"{what} gives probabilities already (it ends in a sigmoid); no sigmoid is applied to them"
    if found == "softmax":
        return found, f"{what} ends in softmax"
    if found == "log-softmax":
        return found, f"{what} ends in log-softmax; softmax turns that into its probabilities"
    if found == "log-sigmoid":
        raise ExportError(f"{what} ends in log-sigmoid, which EdgePort would take for logits; {remedy}")
    return None, ""


def _question(outputs_BK: torch.Tensor, what: str) -> str:
    """What to ask the user of outputs that only look like probabilities, for weak noise and for strong; "" if nothing.

    Raises:
        ExportError: if they look like percentages.
    """
    sums_to_100 = bool(((outputs_BK.sum(1) - 100).abs() < _SUM_TOLERANCE).all())
    if outputs_BK.shape[1] > 1 and sums_to_100 and bool((outputs_BK >= 0).all()):
        raise ExportError(
            f"{what}'s outputs are not negative and sum to 100 for every image, as percentages do; divide them by "
            "100, or return the logits"
        )
    if bool(((outputs_BK >= 0) & (outputs_BK <= 1)).all()):
        return (
            f"every output of {what} lies between 0 and 1, and is taken for a logit; if it is a probability "
            f"already, let {what} end in torch.sigmoid or torch.softmax, so that no other is applied"
        )
    return ""


def _at(line: str | None) -> str:
    return f" (at {line})" if line else ""


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Warnings of the user's code come again in training; here they would stand between stages."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
