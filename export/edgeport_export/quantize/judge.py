"""Measures how far a quantized model is from its float original on the given images. Shapes: B images, K outputs."""

from __future__ import annotations

import itertools
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeport_export.graph.model_file import save_model
from edgeport_export.quantize.calibration import MAX_UNREADABLE
from edgeport_export.quantize.drop import Drop, measure_drop
from edgeport_runtime.engine.batches import run_each, run_in_batches
from edgeport_runtime.engine.providers import CPU
from edgeport_runtime.engine.saturation import adds_in_16_bits
from edgeport_runtime.engine.session import Session, SessionSettings
from edgeport_runtime.errors import ImageWarning, InputError
from edgeport_runtime.outputs.metrics import relative_l2_of_all
from edgeport_runtime.outputs.tasks import compared, decisions
from edgeport_runtime.pixels.preprocess import preprocess
from edgeport_runtime.report.outcomes import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import onnx
    from numpy.typing import NDArray

    from edgeport_export.quantize.calibration import CalibrationImages
    from edgeport_runtime.accuracy.dataset import LabelledImages
    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.report.outcomes import ImageSource

__all__ = ["EvaluationImages", "Judge", "Likeness", "signal_to_noise"]

_BATCH = 8
_NUM_PROBES = 32  # images by which layers are ranked and ranges chosen


class EvaluationImages:
    """Labelled images, preprocessed a batch at a time; those that cannot be used are left out.

    Args:
        images: where they are and what is true of them.
        contract: preprocessing and batch.
    """

    def __init__(self, images: LabelledImages, contract: Contract) -> None:
        self._images, self._contract = images, contract
        self._unusable: dict[int, str] = {}

    @property
    def targets(self) -> NDArray[np.int64]:
        """What is true of the images that can be used; known after the first pass."""
        return self.labelled.targets

    @property
    def labelled(self) -> LabelledImages:
        """The images that can be used, and what is true of them; known after the first pass."""
        return self._images.subset([i for i in range(len(self._images.paths)) if i not in self._unusable])

    def batches(self) -> Iterator[NDArray[np.float32]]:
        """Preprocessed images in their order; the last batch is filled up where the contract fixes its size.

        Raises:
            InputError: if more than 5% of the images cannot be used.
        """
        size = self._contract.batch or _BATCH
        usable = self._usable()
        while part := list(itertools.islice(usable, size)):
            yield np.stack(part + part[:1] * (size - len(part) if self._contract.batch else 0))

    def _usable(self) -> Iterator[NDArray[np.float32]]:
        for i, path in enumerate(self._images.paths):
            if i in self._unusable:
                continue
            try:
                yield preprocess(path, self._contract.preprocess)
            except InputError as error:
                self._unusable[i] = str(error)
                self._check_unusable()

    def _check_unusable(self) -> None:
        num_images, errors = len(self._images.paths), list(self._unusable.values())
        if len(errors) > MAX_UNREADABLE * num_images:
            raise InputError(
                f"--eval: {len(errors)} of {num_images} images cannot be used, more than {MAX_UNREADABLE:.0%}; the "
                f"last error: {errors[-1]}"
            )
        message = "images of --eval that cannot be used are left out"
        warnings.warn(ImageWarning(message, image=errors[-1]), stacklevel=1)


class Likeness(NamedTuple):
    """How like the float model a candidate is.

    Attributes:
        relative_l2: distance of the outputs over all golden images or over all calibration images, the larger of both.
        num_images: the user's images that decisions were compared on: labelled, of calibration or golden, whichever
            are the most; 0 where there are only synthetic ones.
        num_equal: those decided as the float model decides.
    """

    relative_l2: float
    num_images: int
    num_equal: int

    @property
    def agreement(self) -> float:
        """Fraction of equal decisions; 1 where there are no images."""
        return self.num_equal / self.num_images if self.num_images else 1.0


class Judge:
    """Runs candidates on the same images as the float model.

    Args:
        model: float, weights inside.
        contract: task and thresholds.
        golden: batches of the golden images; empty where they say nothing of how good a variant is.
        golden_files: of those, the files that are the user's own.
        calibration: images without labels, if there are any.
        evaluation: images with labels, if there are any.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        contract: Contract,
        *,
        golden: list[NDArray[np.float32]],
        golden_files: Sequence[Path],
        calibration: CalibrationImages | None,
        evaluation: EvaluationImages | None,
    ) -> None:
        self._contract = contract
        self._calibration, self._evaluation, self._golden_files = calibration, evaluation, golden_files
        source = evaluation if calibration is None else calibration
        self._probes = golden if source is None else _first(_NUM_PROBES, source.batches())
        self._sources: dict[ImageSource, Callable[[], Iterable[NDArray[np.float32]]]] = {}
        if golden:
            self._sources["golden"] = lambda: golden
        if calibration is not None:
            self._sources["calibration"] = calibration.batches
        if evaluation is not None:
            self._sources["evaluation"] = evaluation.batches
        run = _runner(model, contract)
        self._reference = {name: _joined(run, batches()) for name, batches in self._sources.items()}
        self._probe_reference = _joined(run, self._probes)
        self._candidate: _Candidate | None = None

    def likeness(self, model: onnx.ModelProto) -> Likeness:
        """Compare a candidate's outputs and decisions with the float model's."""
        names: list[ImageSource] = [name for name in self._sources if name != "evaluation"]
        relative_l2 = max(
            relative_l2_of_all(*compared(self._outputs(model, name), self._reference[name], self._contract))
            for name in names
        )
        counts = {name: self._count(name) for name in names}
        if self._evaluation is not None and len(self._evaluation.targets) > max(counts.values()):
            counts["evaluation"] = len(self._evaluation.targets)
        name = max(counts, key=lambda name: counts[name])
        ours, theirs = (decisions(of[: counts[name]], self._contract) for of in self._pair(model, name))
        return Likeness(relative_l2, counts[name], int((ours == theirs).all(axis=1).sum()))

    def probe(self, model: onnx.ModelProto) -> float:
        """Signal to quantization noise at the outputs, in decibels, on a few images."""
        outputs_BK = _joined(_runner(model, self._contract), self._probes)
        return signal_to_noise(*compared(outputs_BK, self._probe_reference, self._contract))

    def drop(self, model: onnx.ModelProto) -> Drop:
        """What is lost on the labelled images, or else how many of the calibration images are decided differently."""
        if self._evaluation is None:
            return measure_drop(*self._pair(model, "calibration"), None, self._contract)
        outputs_BK, reference_BK = self._pair(model, "evaluation")
        targets = self._evaluation.targets
        num_images = len(targets)  # a fixed batch may have been filled up
        return measure_drop(outputs_BK[:num_images], reference_BK[:num_images], targets, self._contract)

    def seen(self, model: onnx.ModelProto, name: str) -> Seen | None:
        """What the float model and a candidate give for the user's images: labelled, of calibration, or golden.

        Args:
            model: the candidate; what was kept of it for this is let go.
            name: what it is called; the float model is ``fp32``.

        Returns:
            None where there are only synthetic images.
        """
        source: ImageSource = next((s for s in ("evaluation", "calibration", "golden") if self._count(s)), "synthetic")
        if source == "synthetic":
            return None
        outputs_BK, reference_BK = self._pair(model, source)
        self._candidate = None
        images, labelled = self._golden_files, None
        if source == "evaluation":
            assert self._evaluation is not None
            labelled = self._evaluation.labelled
            images = labelled.paths
        elif source == "calibration":
            assert self._calibration is not None
            images = self._calibration.images
        outputs = {"fp32": reference_BK[: len(images)], name: outputs_BK[: len(images)]}
        return Seen(source, images, outputs, labelled)

    def _count(self, source: ImageSource) -> int:
        """How many images of the user's there are."""
        if source == "golden":
            return len(self._golden_files) if "golden" in self._sources else 0
        if source == "evaluation":
            return 0 if self._evaluation is None else len(self._evaluation.targets)
        return 0 if self._calibration is None or self._calibration.is_builtin else len(self._calibration.images)

    def _pair(self, model: onnx.ModelProto, source: ImageSource) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self._outputs(model, source), self._reference[source]

    def _outputs(self, model: onnx.ModelProto, source: ImageSource) -> NDArray[np.float32]:
        """What a candidate gives; kept for the last one that was asked for."""
        if self._candidate is None or self._candidate.model is not model:
            self._candidate = _Candidate(model, _runner(model, self._contract), {})
        kept = self._candidate.outputs
        if source not in kept:
            kept[source] = _joined(self._candidate.run, self._sources[source]())
        return kept[source]


class _Candidate(NamedTuple):
    model: onnx.ModelProto
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    outputs: dict[ImageSource, NDArray[np.float32]]


def signal_to_noise(outputs_BK: NDArray[Any], reference_BK: NDArray[Any]) -> float:
    """Mean square of the reference over that of the difference, in decibels."""
    relative = relative_l2_of_all(outputs_BK, reference_BK)
    return float(-20 * np.log10(relative)) if relative > 0 else float("inf")


def _runner(model: onnx.ModelProto, contract: Contract) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The model loaded as the runtime loads it, and run as it runs images that are not one input."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidate.onnx"
        save_model(model, path, check=False, keep=True)
        # Where int8 could saturate, it is computed in float, which is exact.
        session = Session(path, provider=CPU, settings=SessionSettings(unpack_weights=adds_in_16_bits()))
    has_dynamic_ranges = any(node.op_type == "DynamicQuantizeLinear" for node in model.graph.node)
    run = run_each if has_dynamic_ranges else run_in_batches
    return lambda x_BCHW: run(session.run, x_BCHW, contract.batch)


def _joined(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]], batches: Iterable[NDArray[np.float32]]
) -> NDArray[np.float32]:
    return np.concatenate([run(x_BCHW) for x_BCHW in batches])


def _first(num_images: int, batches: Iterable[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    chosen: list[NDArray[np.float32]] = []
    for x_BCHW in batches:
        chosen.append(x_BCHW)
        if sum(map(len, chosen)) >= num_images:
            break
    return chosen
