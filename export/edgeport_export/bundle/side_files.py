"""Graphs beside a variant's own: with the region that speaks for an answer, and with the features before the head."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from edgeport_export.bundle.formats import data_file
from edgeport_export.graph.evidence import add_evidence, keep_features
from edgeport_export.graph.model_file import save_model
from edgeport_export.graph.outcome import Left
from edgeport_export.parity.chain import SATURATES
from edgeport_export.parity.compare import FLOAT32_LIMITS
from edgeport_export.parity.features import read_features
from edgeport_runtime.bundle.side_files import Evidence, Features
from edgeport_runtime.engine.batches import run_each, run_in_batches
from edgeport_runtime.engine.providers import CPU
from edgeport_runtime.engine.session import SessionSettings
from edgeport_runtime.engine.side import EvidenceSession, FeaturesSession
from edgeport_runtime.errors import ExportError, ParityError
from edgeport_runtime.loading.choice import is_dynamic, saturates
from edgeport_runtime.loading.load import settings_of
from edgeport_runtime.outputs.metrics import relative_l2, relative_l2_of_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from edgeport_export.parity.chain import Chain
    from edgeport_export.parity.compare import Limits
    from edgeport_export.progress import Progress
    from edgeport_runtime.bundle.manifest import Variant

__all__ = ["check_features", "write_evidence", "write_features"]

_MAX_FEATURES_L2 = 1e-4
"""Of a float variant's features from PyTorch's, of the worst golden image."""


def write_evidence(
    variants: tuple[Variant, ...],
    limits: Mapping[str, Limits],
    chain: Chain,
    *,
    bundle: Path,
    progress: Progress,
) -> tuple[tuple[Variant, ...], list[str]]:
    """Write ``model.<variant>.evidence.onnx`` for each variant whose graph shows how, and compare its logits.

    Returns:
        The variants with the method of each, and a note on each.

    Raises:
        ParityError: if a graph departs.
    """
    done, notes = [], []
    for variant in variants:
        model = onnx.load(bundle / variant.file, load_external_data=False)
        try:
            found = add_evidence(model)
        except Left as reason:
            evidence = Evidence(method="occlusion", reason=str(reason))
            notes.append(f"{variant.name}: heat maps are made by occlusion, which is slow: {reason}")
        else:
            path = bundle / f"model.{variant.name}.evidence.onnx"
            save_model(model, path, check=False)
            stage = f"evidence {variant.name}"
            progress.stage(stage)
            if saturates(variant.quantization, CPU):
                chain.skip(stage, SATURATES)
            else:
                limit = limits.get(variant.name, FLOAT32_LIMITS)
                chain.check_graph(stage, path, limits=limit, session=EvidenceSession)
            evidence = Evidence(method=found.method, graph=data_file(path))
            height, width = found.sides
            notes.append(f"{variant.name}: heat maps of {height}x{width} are made by {found.method}")
        done.append(replace(variant, evidence=evidence))
    return tuple(done), notes


def check_features(path: Path) -> None:
    """Raise ExportError if a float graph does not end in a linear layer whose input are features."""
    try:
        keep_features(onnx.load(path, load_external_data=False))
    except Left as reason:
        raise ExportError(f"--features: the graph does not show them: {reason}; omit --features") from None


def write_features(
    variants: tuple[Variant, ...],
    module: nn.Module,
    limits: Mapping[str, Limits],
    chain: Chain,
    *,
    bundle: Path,
    progress: Progress,
) -> tuple[tuple[Variant, ...], list[str]]:
    """Write ``model.<variant>.features.onnx`` for each variant, compared with what PyTorch's last layer reads.

    Args:
        variants: of the bundle.
        module: the network.
        limits: of the outputs of variants that are not float.
        chain: has the golden images.
        bundle: its folder.
        progress: is told of each.

    Returns:
        The variants with what was written, and a note on those whose graph does not show the features.

    Raises:
        ExportError: if PyTorch's network ends in no linear layer that is known.
        ParityError: if features depart.
    """
    expected = [read_features(module, batch) for batch in chain.images]
    done, notes = [], []
    for variant in variants:
        model = onnx.load(bundle / variant.file, load_external_data=False)
        try:
            num_features = keep_features(model)
        except Left as reason:
            notes.append(f"{variant.name}: no features: {reason}")
            done.append(variant)
            continue
        progress.stage(f"features {variant.name}")
        path = bundle / f"model.{variant.name}.features.onnx"
        save_model(model, path, check=False)
        distance = _distance(path, variant, chain, expected, limits.get(variant.name))
        features = Features(graph=data_file(path), num_features=num_features, relative_l2=float(f"{distance:.6g}"))
        done.append(replace(variant, features=features))
    return tuple(done), notes


def _distance(
    path: Path,
    variant: Variant,
    chain: Chain,
    expected: Sequence[NDArray[np.float32]],
    limits: Limits | None,
) -> float:
    """Relative L2 distance of features from PyTorch's on the golden images."""
    settings = settings_of(variant, chain.contract, SessionSettings())
    session = FeaturesSession(path, provider=CPU, settings=settings)
    run = run_each if is_dynamic(variant.quantization) else run_in_batches
    outputs_BD = np.concatenate([run(session.run, batch, chain.contract.batch) for batch in chain.images])
    expected_BD = np.concatenate(expected)
    if outputs_BD.shape != expected_BD.shape:
        raise ParityError(
            f"{path.name} gives features of shape {outputs_BD.shape}, PyTorch's last linear layer reads "
            f"{expected_BD.shape}; no bundle was written",
            report=chain.report,
        )
    is_float = limits is None
    distance = (
        float(relative_l2(outputs_BD, expected_BD).max()) if is_float else relative_l2_of_all(outputs_BD, expected_BD)
    )
    largest = _MAX_FEATURES_L2 if limits is None else limits.relative_l2
    if not distance <= largest and not saturates(variant.quantization, CPU):
        raise ParityError(
            f"{path.name} departs from what PyTorch's last linear layer reads: relative L2 {distance:.2e} (at most "
            f"{largest:.0e}); no bundle was written",
            report=chain.report,
        )
    return distance
