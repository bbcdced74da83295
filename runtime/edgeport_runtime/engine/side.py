"""Sessions of the graphs beside a variant's own: those that also give a map, and those that give features.

Shapes: B batch, C channels, H W image, h w map, D features, K outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.bundle.contract import OUTPUTS
from edgeport_runtime.engine.session import INPUT_NAME, Session
from edgeport_runtime.errors import ManifestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeport_runtime.engine.providers import Provider

__all__ = ["EVIDENCE_NAME", "FEATURES_NAME", "SEED_NAME", "EvidenceSession", "FeaturesSession"]

EVIDENCE_NAME, SEED_NAME, FEATURES_NAME = "evidence", "seed", "features"


class _SideSession(Session):
    """Their values pass through numpy."""

    def _bind(self, provider: Provider) -> None:
        """There are several, or of other shapes."""


class EvidenceSession(_SideSession):
    """As ``Session``, of a graph with a map as its second output; ``run`` gives its first."""

    def _find_ends(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        names = [one.name for one in inputs]
        is_known = [one.name for one in outputs[1:]] == [EVIDENCE_NAME] and outputs[0].name in OUTPUTS
        is_known = is_known and len(outputs[1].shape) == 3
        if names not in ([INPUT_NAME], [INPUT_NAME, SEED_NAME]) or not is_known:
            raise ManifestError(f"{self.path} has no image as its input, or no outputs and {EVIDENCE_NAME} after it")
        self.input_shape, self.output_shape = inputs[0].shape, outputs[0].shape
        self.output_name = outputs[0].name
        self._has_seed = len(names) == 2

    def run(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """The graph's first output (B, K) float32; errors as of ``Session.run``."""
        return self._both(x_BCHW, np.zeros((len(x_BCHW), int(self.output_shape[1])), np.float32))[0]

    def maps(self, x_BCHW: NDArray[np.float32], seed_BK: NDArray[np.float32]) -> NDArray[np.float32]:
        """The maps (B, h, w) float32 of ``sum_k seed_k output_k``; one without a seed is the same for all outputs."""
        return self._both(x_BCHW, seed_BK)[1]

    def _both(self, x_BCHW: NDArray[np.float32], seed_BK: NDArray[np.float32]) -> list[NDArray[Any]]:
        return self._call_all(
            {INPUT_NAME: x_BCHW, **({SEED_NAME: seed_BK} if self._has_seed else {})}, [self.output_name, EVIDENCE_NAME]
        )


class FeaturesSession(_SideSession):
    """As ``Session``, of a graph that gives features; ``run`` gives (B, D)."""

    def _find_ends(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [one.name for one in inputs] != [INPUT_NAME] or [one.name for one in outputs] != [FEATURES_NAME]:
            raise ManifestError(f"{self.path} does not map an image to {FEATURES_NAME}")
        self.input_shape, self.output_shape = inputs[0].shape, outputs[0].shape
        self.output_name = FEATURES_NAME
