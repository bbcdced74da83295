"""A PyTorch module as what every stage is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgeport_export.parity.float64 import in_float64
from edgeport_export.parity.locate import first_departure, first_inexact, values_of_program
from edgeport_export.parity.rows import check_module_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["TorchOriginal"]


class TorchOriginal:
    """An ``Original``; its methods are described there.

    Args:
        module: in float32 and evaluation mode; it is in float64 for the time of such a run, and then as it was.
    """

    name = "PyTorch"
    what = "the module"
    is_early_in_float64 = True

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._program: torch.export.ExportedProgram | None = None

    def follow(self, program: torch.export.ExportedProgram) -> None:
        """Take the captured program, which names the node of a failed stage."""
        self._program = program

    def run(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """In float32."""
        with torch.no_grad():
            # A module may change its input, and give a buffer that it uses again.
            outputs_BK: NDArray[np.float32] = self._module(torch.tensor(x_BCHW)).numpy().copy()
        return outputs_BK

    def run_in_float64(self, batches: Sequence[NDArray[np.float32]]) -> Iterator[NDArray[np.float64]]:
        """The module is in float64 until the last was run."""
        with in_float64(self._module), torch.no_grad():
            for batch in batches:
                yield self._module(torch.tensor(batch).double()).numpy()

    def check_rows(
        self, batches: Sequence[NDArray[np.float32]], outputs: Sequence[NDArray[np.float32]], contract: Contract
    ) -> None:
        """Names the submodule and the line."""
        check_module_rows(self._module, batches, outputs, contract)

    def first_departure(self, path: Path, x_BCHW: NDArray[np.float32]) -> str | None:
        """By the captured program."""
        program = self._program
        if program is None:
            return None
        return first_departure(lambda output: values_of_program(program, x_BCHW, output=output), path, x_BCHW)

    def first_inexact(self, x_BCHW: NDArray[np.float32]) -> str | None:
        """By the captured program, which is in float64 afterwards."""
        return None if self._program is None else first_inexact(self._program, x_BCHW)
