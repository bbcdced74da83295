"""Runs the stages of the parity chain, stops at the first that fails, and names it and the node that departs."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgeport_export.graph.model_file import identity_of_data
from edgeport_export.parity.compare import (
    FLOAT32_LIMITS,
    IN_GRAPH_INT8_LIMITS,
    IN_GRAPH_LIMITS,
    MAX_RELATIVE_L2,
    Limits,
    ParityReport,
    SkippedStage,
    StageReport,
    compare,
)
from edgeport_export.parity.float64 import OwnDistance
from edgeport_export.parity.reference import check_reference, leave_out_constants
from edgeport_export.parity.rows import check_graph_rows
from edgeport_runtime.accuracy.answers import check_answers
from edgeport_runtime.accuracy.golden import replay
from edgeport_runtime.bundle.files import sha256_of
from edgeport_runtime.engine.providers import CPU
from edgeport_runtime.engine.saturation import adds_in_16_bits
from edgeport_runtime.engine.session import Session, SessionSettings
from edgeport_runtime.errors import ParityError, SessionError
from edgeport_runtime.loading.load import settings_of
from edgeport_runtime.pixels.decode import load_image
from edgeport_runtime.pixels.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_export.parity.original import Original
    from edgeport_runtime.accuracy.answers import AnswerReport
    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.classifier import Classifier

__all__ = ["MAX_SCORE_DIFFERENCE", "SATURATES", "Chain"]

SATURATES = "the int8 arithmetic of this variant can saturate on the build machine's processor"
"""Why a stage is skipped."""

MAX_SCORE_DIFFERENCE = 1e-3
"""Of a probability of a float32 variant from PyTorch's, where the logits are within 1e-5."""

_FEW = 6  # inputs: an image alone, the two constants, and three of random values

_ORT_NODE = re.compile(r"running (\w+) node\. Name:'([^']*)'")


class Chain:
    """The comparisons of one export.

    Args:
        original: what every stage is compared with.
        batches: what every stage is run on, float32 BCHW each; the golden images come first.
        contract: what its outputs mean.
        num_images: how many golden images there are; None if there is nothing else.

    Attributes:
        contract: as given.
        original: as given.
        reference_BK: its outputs for all batches, joined.
        notes: what is not compared, and why.

    Raises:
        ParityError: if the original's own outputs are zero, constant or not finite, so that nothing could be compared.
        ExportError: if the answer to an image depends on its batch, naming the submodule.
    """

    def __init__(
        self,
        original: Original,
        batches: Sequence[NDArray[np.float32]],
        *,
        contract: Contract,
        num_images: int | None = None,
    ) -> None:
        self.original = original
        self.contract = contract
        self._num_images = sum(map(len, batches)) if num_images is None else num_images
        outputs = [original.run(batch) for batch in batches]
        self._batches, outputs, self.notes = leave_out_constants(
            original.run, batches, outputs, num_images=self._num_images, name=original.name
        )
        self.reference_BK: NDArray[np.float32] = np.concatenate(outputs)
        check_reference(self.reference_BK, contract, num_images=self._num_images, what=original.what)
        original.check_rows(self._batches, outputs, contract)
        self._own = OwnDistance(original, self._batches, self.reference_BK, contract)
        if original.is_early_in_float64:
            self._own.run_last()
        self._stages: list[StageReport] = []
        self._skipped: list[SkippedStage] = []
        self._has_checked_rows = False
        self._checked: dict[tuple[str | int, ...], tuple[str, NDArray[np.float32]]] = {}

    @property
    def report(self) -> ParityReport:
        """The stages so far."""
        return ParityReport(stages=tuple(self._stages), skipped=tuple(self._skipped))

    @property
    def images(self) -> list[NDArray[np.float32]]:
        """The batches of the golden images."""
        batches, left = [], self._num_images
        for batch in self._batches:
            if left > 0:
                batches.append(batch if self.contract.batch is not None else batch[:left])
                left -= len(batch)
        return batches

    def check_graph(
        self,
        stage: str,
        path: Path,
        *,
        limits: Limits = FLOAT32_LIMITS,
        few: bool = False,
        session: type[Session] = Session,
    ) -> str:
        """Run a graph on all batches and compare.

        Args:
            stage: its name.
            path: the graph's file.
            limits: what must be met.
            few: run the last batches only, which hold the image alone, the constants and random values; for a graph
                from which another is made that is run on all.
            session: what loads it.

        Returns:
            The SHA-256 digest of the file.

        Raises:
            ParityError: naming the stage and the node, if it departs or cannot run.
        """
        first = self._first_of_few() if few else 0
        digest = sha256_of(path)
        identity: tuple[str | int, ...] = (digest, *identity_of_data(path))
        if identity in self._checked:
            earlier, outputs_BK = self._checked[identity]
            self._judge(self._compare(stage, outputs_BK, limits, same_bytes_as=earlier), path, outputs_BK)
            return digest
        try:
            # Where int8 could saturate, it is computed in float, which is exact.
            opened = session(path, provider=CPU, settings=SessionSettings(unpack_weights=adds_in_16_bits()))
            outputs_BK = np.concatenate([opened.run(batch) for batch in self._batches[first:]])
        except SessionError as error:
            found = _ORT_NODE.search(str(error))
            node = f" at node {found[2]} ({found[1]})" if found else ""
            raise ParityError(f"stage {stage} fails{node}: {error}", report=self.report) from error
        skipped = sum(map(len, self._batches[:first]))
        wanted = self.reference_BK[skipped:].shape
        if outputs_BK.shape != wanted:
            raise ParityError(
                f"stage {stage}: the outputs have shape {outputs_BK.shape}, {self.original.name}'s have {wanted}",
                report=self.report,
            )
        if few:
            report = self._compare(stage, outputs_BK, limits, skipped=skipped)
            if not report.passed:
                self._check_rows(stage, opened, outputs_BK, first)
            self._judge(report, path, outputs_BK, skipped=skipped)
            return digest
        self._checked[identity] = (stage, outputs_BK)
        if limits.over == "sample" and not self._has_checked_rows:
            self._check_rows(stage, opened, outputs_BK, 0)
            self._has_checked_rows = True
        self._judge(self._compare(stage, outputs_BK, limits), path, outputs_BK)
        return digest

    def _check_rows(self, stage: str, session: Session, outputs_BK: NDArray[np.float32], first: int) -> None:
        own = self._own.largest or 0.0
        check_graph_rows(session.run, self._batches[first:], outputs_BK, self.contract, stage=stage, own=own)

    def _first_of_few(self) -> int:
        """The number of the batch with which the few begin; where the batch is fixed they may be more."""
        number = len(self._batches)
        while number and sum(map(len, self._batches[number:])) < _FEW:
            number -= 1
        return number

    def _compare(
        self,
        stage: str,
        outputs_BK: NDArray[np.float32],
        limits: Limits,
        *,
        same_bytes_as: str | None = None,
        skipped: int = 0,
    ) -> StageReport:
        num_compared = self._num_images if limits.over == "images" else len(outputs_BK)
        reference_BK = self.reference_BK[skipped : skipped + num_compared]
        report = self._measure(stage, outputs_BK[:num_compared], reference_BK, limits, skipped=skipped)
        if not np.isfinite(outputs_BK).all():
            report = replace(report, relative_l2=np.inf)
        return replace(report, same_bytes_as=same_bytes_as)

    def _measure(
        self,
        stage: str,
        outputs_BK: NDArray[np.float32],
        reference_BK: NDArray[np.float32],
        limits: Limits,
        *,
        skipped: int = 0,
    ) -> StageReport:
        """Compare outputs with rows of the reference; a float stage beyond its limit also with float64."""
        report = compare(stage, outputs_BK, reference_BK, limits=limits, contract=self.contract)
        if limits.over != "sample":
            return report
        if limits.relative_l2 < report.relative_l2 < np.inf:
            self._own.run_all()
            own_B = self._own.noise()[skipped : skipped + len(outputs_BK)]
            report = compare(stage, outputs_BK, reference_BK, limits=limits, contract=self.contract, own_B=own_B)
        return replace(report, float64_l2=self._own.largest)

    def check_reference(
        self,
        stage: str,
        outputs_BK: NDArray[np.float32],
        expected_BK: NDArray[np.float32],
        *,
        limits: Limits,
        source: str,
    ) -> None:
        """Compare outputs of the original with those that somebody else has for the same inputs.

        Raises:
            ParityError: naming the stage and ``source``, the place of the others.
        """
        report = compare(stage, outputs_BK, expected_BK, limits=limits, contract=self.contract)
        self._stages.append(report)
        if not report.passed:
            raise ParityError(
                f"stage {stage}: {self.original.name} departs from {source}: {_verdict(report)}", report=self.report
            )

    def skip(self, stage: str, reason: str) -> None:
        """Note a stage that this machine cannot run."""
        self._skipped.append(SkippedStage(stage=stage, reason=reason))

    def forget(self, variant: str) -> None:
        """Take back the stages of a variant that is left out."""
        names = (f"variant {variant}", f"runtime {variant}")
        self._stages = [stage for stage in self._stages if stage.stage not in names]
        self._skipped = [stage for stage in self._skipped if stage.stage not in names]

    def check_runtime(
        self, stage: str, classifier: Classifier, bundle: Path, *, limits: Limits = FLOAT32_LIMITS
    ) -> tuple[StageReport, AnswerReport]:
        """Compare what a bundle's classifier gives from image bytes, and what it answers.

        Args:
            stage: its name.
            classifier: the bundle, loaded the way a user loads it.
            bundle: its folder.
            limits: what must be met.

        Returns:
            The stage's report, and how far its answers are from the original's.

        Raises:
            ParityError: naming the stage, or the answer that is wrong.
        """
        golden = replay(classifier, bundle)
        assert golden.answers is not None
        report = self._measure(stage, golden.outputs, golden.expected, limits)
        self._stages.append(report)
        if not report.passed:
            raise ParityError(
                f"stage {stage} departs from {self.original.name}: {_verdict(report)}", report=self.report
            )
        is_float = classifier.variant is not None and classifier.variant.quantization is None
        answers = check_answers(
            classifier, golden.images, golden.answers, tolerance=MAX_SCORE_DIFFERENCE if is_float else 1.0, brief=True
        )
        if answers.problem is not None:
            raise ParityError(
                f"stage {stage}: the answers are not {self.original.name}'s: {answers.problem}; no bundle was written",
                report=self.report,
            )
        return report, answers

    def check_in_graph(self, stage: str, path: Path, classifier: Classifier, bundle: Path) -> StageReport:
        """Compare a model that takes pixels with the runtime's preprocessing before the same variant.

        Args:
            stage: its name.
            path: the model.
            classifier: the variant.
            bundle: its folder.

        Returns:
            The stage's report.

        Raises:
            ParityError: naming the stage.
        """
        assert classifier.manifest is not None
        assert classifier.variant is not None
        settings = settings_of(classifier.variant, self.contract, SessionSettings())
        session = Session(path, provider=CPU, settings=settings)
        images = [bundle / image.file for image in classifier.manifest.golden.images]
        spec = self.contract.preprocess
        report = compare(
            stage,
            np.concatenate(
                [session.run(np.asarray(load_image(image, spec.pixel_mode, bits=spec.bits))) for image in images]
            ),
            np.concatenate([classifier.outputs(preprocess(image, spec)[np.newaxis]) for image in images]),
            limits=IN_GRAPH_INT8_LIMITS if classifier.variant.precision == "int8" else IN_GRAPH_LIMITS,
            contract=self.contract,
        )
        self._stages.append(report)
        if not report.passed:
            raise ParityError(f"stage {stage} departs from the runtime: {_verdict(report)}", report=self.report)
        return report

    def _judge(self, report: StageReport, path: Path, outputs_BK: NDArray[np.float32], *, skipped: int = 0) -> None:
        self._stages.append(report)
        if report.passed:
            return
        if report.limits.over == "images":  # its values are not PyTorch's, and no single node is to blame
            raise ParityError(
                f"stage {report.stage} departs from {self.original.name}: {_verdict(report)}", report=self.report
            )
        distance_B = np.linalg.norm(outputs_BK.astype(np.float64) - self.reference_BK[skipped:], axis=1)
        worst = skipped + int(np.nan_to_num(distance_B, nan=np.inf).argmax())
        batch, place = self._find(worst)
        original, has_nodes = self.original, path.suffix == ".onnx"
        own = self._own.distances()[worst]
        if own > MAX_RELATIVE_L2:
            node = original.first_inexact(batch) if has_nodes else None
            raise ParityError(
                f"stage {report.stage}: the network is ill-conditioned: on {self._kind(worst, batch[place])} "
                f"{original.name}'s own float32 differs from its float64 by a relative L2 of {own:.1e}"
                f"{f', first at node {node}' if node else ''}, so that no float32 runtime can be held to its answers; "
                "no bundle was written",
                report=self.report,
            )
        node = original.first_departure(path, batch) if has_nodes else None
        where = f" at node {node}" if node else ""
        raise ParityError(
            f"stage {report.stage} departs from {original.name}{where} on {self._kind(worst, batch[place])}: "
            f"{_verdict(report)}",
            report=self.report,
        )

    def _kind(self, row: int, image_CHW: NDArray[np.float32]) -> str:
        if row < self._num_images:
            return f"golden image {row + 1}"
        return "a constant image" if (np.ptp(image_CHW, axis=(1, 2)) == 0).all() else "random values"

    def _find(self, row: int) -> tuple[NDArray[np.float32], int]:
        """The batch that holds a row of the reference, and its place there."""
        for batch in self._batches:
            if row < len(batch):
                return batch, row
            row -= len(batch)
        raise IndexError(row)


def _verdict(report: StageReport) -> str:
    limits = report.limits
    decision = "top-1" if report.flips is None else "decision"
    return (
        f"relative L2 {report.relative_l2:.2e} (at most {limits.relative_l2:.0e}), "
        f"{decision} agreement {report.agreement:.1%} (at least {limits.agreement:.1%}); no bundle was written"
    )
