"""The graphs beside a variant's own, loaded when they are asked for."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from edgeport_runtime.bundle.files import check_digests, checked_file
from edgeport_runtime.engine.side import EvidenceSession, FeaturesSession
from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edgeport_runtime.bundle.manifest import Manifest, Variant
    from edgeport_runtime.bundle.side_files import DataFile, Method
    from edgeport_runtime.engine.providers import Provider
    from edgeport_runtime.engine.session import Session, SessionSettings

__all__ = ["Maps", "SideGraphs"]


class Maps(NamedTuple):
    """What gives maps (B, h, w) for inputs (B, C, H, W) and what each output weighs (B, K), and how they are made."""

    maps: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
    method: Method


class SideGraphs:
    """Those of one variant; safe to share between threads.

    Args:
        bundle: its folder; None for a lone ``.onnx``, which has none of them.
        manifest: of the bundle.
        variant: the one in use.
        provider: what it runs on.
    """

    def __init__(
        self, bundle: Path | None, manifest: Manifest | None, variant: Variant | None, provider: Provider
    ) -> None:
        self._bundle, self._manifest, self._variant, self._provider = bundle, manifest, variant, provider
        self._lock = threading.Lock()
        self._evidence: EvidenceSession | None = None
        self._features: FeaturesSession | None = None

    def evidence(self, settings: SessionSettings) -> Maps | str:
        """Load the variant with its map; where there is none, why.

        Raises:
            ManifestError, SessionError: as of ``Classifier.load``.
        """
        told = None if self._variant is None else self._variant.evidence
        if told is None:
            return "the model was exported without --evidence"
        if told.graph is None:
            return told.reason or ""
        with self._lock:
            if self._evidence is None:
                path = self._checked(told.graph)
                self._evidence = EvidenceSession(path, provider=self._provider, settings=_fit(settings))
            return Maps(self._evidence.maps, told.method)

    def features(self, settings: SessionSettings) -> Session:
        """Load the variant up to its last linear layer.

        Raises:
            InputError: if there is none.
            ManifestError, SessionError: as of ``Classifier.load``.
        """
        if self._variant is None or self._manifest is None:
            raise InputError("features need the bundle's folder; a lone .onnx gives its outputs only")
        told = self._variant.features
        if told is None:
            others = [one.name for one in self._manifest.variants if one.features is not None]
            remedy = f"load the variant {' or '.join(others)}" if others else "export it again with --features"
            raise InputError(f"the variant {self._variant.name} of {self._bundle} has no features; {remedy}")
        with self._lock:
            if self._features is None:
                path = self._checked(told.graph)
                self._features = FeaturesSession(path, provider=self._provider, settings=_fit(settings))
            return self._features

    def close(self) -> None:
        """Free them."""
        self._evidence = self._features = None

    def _checked(self, file: DataFile) -> Path:
        assert self._bundle is not None
        assert self._variant is not None
        if self._variant.data is not None:  # which holds the weights of these graphs as well
            check_digests(self._bundle, self._variant)
        return checked_file(self._bundle, file.file, file.sha256)


def _fit(settings: SessionSettings) -> SessionSettings:
    return replace(settings, is_prepared=False, is_replayed=False)
