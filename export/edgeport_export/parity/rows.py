"""Whether an image's answer depends on the images beside it; and if so, where.

Shapes: B batch, C channels, H W image, K outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edgeport_export.parity.compare import MAX_RELATIVE_L2
from edgeport_export.parity.float64 import NOT_IN_FLOAT64, in_float64
from edgeport_export.user_lines import running_line
from edgeport_runtime.errors import ExportError, ParityError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["check_file_rows", "check_graph_rows", "check_module_rows"]

# Other kernels may run for another batch: that moves a row by the order of additions, neighbours move it by far more.
_TOLERANCE = 1e-4
_TOLERANCE_OF_VALUES = 1e-6  # of what all logits of a row share
_TOLERANCE_INSIDE = 1e-3


def check_module_rows(
    module: nn.Module,
    batches: Sequence[NDArray[np.float32]],
    outputs: Sequence[NDArray[np.float32]],
    contract: Contract,
) -> None:
    """Compare what PyTorch gives for an image in a batch with what it gives for the image alone.

    Args:
        module: in evaluation mode.
        batches: float32 BCHW each.
        outputs: what the module gave for them, BK each.
        contract: where it fixes the batch, the image alone fills it.

    Raises:
        ExportError: naming the submodule and the line where the rows begin to differ.
    """
    index = max(range(len(batches)), key=lambda i: len(batches[i]))
    batch_BCHW, alone_BCHW = batches[index], _alone(batches[index], contract)

    def run(x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            result: NDArray[np.float32] = module(torch.tensor(x_BCHW)).numpy()
        return result

    alone_BK = _answer_alone(run, batches, outputs, alone_BCHW)
    if _distance(alone_BK[-1], outputs[index][-1]) <= 1 or _is_rounding(module, batch_BCHW, alone_BCHW):
        return
    together = _Record.of(module, batch_BCHW)
    if together.reads_values:
        return  # its control flow depends on values: tracing says so, with the line
    place = together.first_difference(_Record.of(module, batch_BCHW))
    if place is not None:
        raise ExportError(
            f"the module gives another answer at each call, because it draws random numbers at {place}; take that out "
            "of evaluation: F.dropout(x, training=self.training)"
        )
    place = together.first_difference(_Record.of(module, alone_BCHW))
    raise ExportError(
        f"the answer to an image depends on the other images of its batch{f', at {place}' if place else ''}; compute "
        "each image by itself (BatchNorm: in evaluation mode, with track_running_stats=True), or export for one image "
        "per call with --batch 1"
    )


def _is_rounding(module: nn.Module, batch_BCHW: NDArray[np.float32], alone_BCHW: NDArray[np.float32]) -> bool:
    """Whether the rows agree in float64; False where the module does not run in it."""
    try:
        with in_float64(module), torch.no_grad():
            together_BK, alone_BK = (module(torch.tensor(x).double()).numpy() for x in (batch_BCHW, alone_BCHW))
    except NOT_IN_FLOAT64:
        return False
    return _distance(alone_BK[-1], together_BK[-1]) <= 1


def check_file_rows(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    batches: Sequence[NDArray[np.float32]],
    outputs: Sequence[NDArray[np.float32]],
    contract: Contract,
    *,
    name: str,
) -> None:
    """As ``check_module_rows``, of a model that came as a file, which has no lines.

    Args:
        run: the model.
        batches: float32 BCHW each.
        outputs: what it gave for them, BK each.
        contract: where it fixes the batch, the image alone fills it.
        name: of the file.

    Raises:
        ExportError: if rows depend on each other, or the answers are others at each call.
    """
    index = max(range(len(batches)), key=lambda i: len(batches[i]))
    if _distance(run(batches[index])[-1], outputs[index][-1]) > 1:
        raise ExportError(f"{name} gives another answer at each call, because it draws random numbers; take that out")
    alone_BK = _answer_alone(run, batches, outputs, _alone(batches[index], contract))
    if _distance(alone_BK[-1], outputs[index][-1]) > 1:
        raise ExportError(
            f"the answer of {name} to an image depends on the other images of its batch; export for one image per call "
            "with --batch 1"
        )


def check_graph_rows(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    batches: Sequence[NDArray[np.float32]],
    outputs_BK: NDArray[np.float32],
    contract: Contract,
    *,
    stage: str,
    own: float,
) -> None:
    """Compare what a graph gives for an image in a batch with what it gives for the image alone.

    Args:
        run: the graph.
        batches: float32 BCHW each.
        outputs_BK: what the graph gave for all of them, joined.
        contract: where it fixes the batch, the image alone fills it.
        stage: its name.
        own: distance of PyTorch's float32 from its float64; a row may differ by ten times as much, and by
            ``MAX_RELATIVE_L2`` at most.

    Raises:
        ParityError: if it differs.
    """
    index = max(range(len(batches)), key=lambda i: len(batches[i]))
    outputs = np.split(outputs_BK, np.cumsum([len(batch) for batch in batches])[:-1])
    alone_BK = _answer_alone(run, batches, outputs, _alone(batches[index], contract))
    if _distance(alone_BK[-1], outputs[index][-1]) > max(1, min(10 * own, MAX_RELATIVE_L2) / _TOLERANCE):
        raise ParityError(
            f"stage {stage}: in the graph the answer to an image depends on the other images of its batch, in PyTorch "
            "it does not; export for one image per call with --batch 1"
        )


def _alone(batch_BCHW: NDArray[np.float32], contract: Contract) -> NDArray[np.float32]:
    """The last image of a batch, without the others."""
    return np.repeat(batch_BCHW[-1:], contract.batch or 1, axis=0)


def _answer_alone(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    batches: Sequence[NDArray[np.float32]],
    outputs: Sequence[NDArray[np.float32]],
    alone_BCHW: NDArray[np.float32],
) -> NDArray[np.float32]:
    """What is known of the image alone, or else what it gives now."""
    known = (out_BK for x_BCHW, out_BK in zip(batches, outputs, strict=True) if np.array_equal(x_BCHW, alone_BCHW))
    found = next(known, None)
    return run(alone_BCHW) if found is None else found


def _distance(a_K: NDArray[np.float32], b_K: NDArray[np.float32]) -> float:
    """Distance over what the order of additions explains: above 1 it is something else."""
    difference = float(np.linalg.norm(a_K.astype(np.float64) - b_K))
    centred = b_K.astype(np.float64) - (b_K.mean() if len(b_K) > 1 else 0)
    allowed = _TOLERANCE * np.linalg.norm(centred) + _TOLERANCE_OF_VALUES * np.linalg.norm(b_K)
    return difference / float(allowed) if difference else 0.0


class _Record(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps, of every operator's result, the last row and where it was made.

    Attributes:
        reads_values: whether the module's Python code asked for a value, as ``if x.sum() > 0`` does.
    """

    def __init__(self, num_rows: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads_values = False
        self._values: list[tuple[str, str, torch.Tensor | None]] = []
        self._num_rows = num_rows
        self._running: list[str] = []

    @classmethod
    def of(cls, module: nn.Module, batch_BCHW: NDArray[np.float32]) -> _Record:
        """The record of one run."""
        record = cls(len(batch_BCHW))
        handles = []
        for name, child in module.named_modules():
            handles.append(child.register_forward_pre_hook(record._enter(name, child)))
            handles.append(child.register_forward_hook(record._leave, always_call=True))
        try:
            with torch.no_grad(), record:
                module(torch.tensor(batch_BCHW))
        finally:
            for handle in handles:
                handle.remove()
        return record

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        value = result[0] if isinstance(result, tuple) and result else result
        self.reads_values |= func is torch.ops.aten._local_scalar_dense.default
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            line = running_line()
            place = (self._running or ["the module"])[-1] + (f" ({line})" if line else "")
            self._values.append((str(func), place, self._last_row(value)))
        return result

    def first_difference(self, other: _Record) -> str | None:
        """Where two runs begin to differ, None if they do not."""
        for (operator, place, x), (its_operator, _, y) in zip(self._values, other._values, strict=False):
            if operator != its_operator:
                return place
            if x is not None and y is not None and x.shape == y.shape:
                distance = (x.nan_to_num() - y.nan_to_num()).norm()
                if float(distance) > _TOLERANCE_INSIDE * float(x.nan_to_num().norm()):
                    return place
        return None

    def _last_row(self, value: torch.Tensor) -> torch.Tensor | None:
        if value.ndim == 0 or len(value) == 0 or len(value) % self._num_rows:
            return None
        rows = len(value) // self._num_rows  # an image may have several, such as its heads
        return value[-rows:].detach().clone()

    def _enter(self, name: str, child: nn.Module) -> Callable[..., None]:
        place = f"{name} ({type(child).__name__})" if name else f"the module ({type(child).__name__})"
        return lambda *_: self._running.append(place)

    def _leave(self, *_: Any) -> None:
        self._running.pop()
