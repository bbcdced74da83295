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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import onnx
    from numpy.typing import NDArray

    from edgeport_export.quantize.calibration import CalibrationImages
    from edgeport_runtime.accuracy.dataset import LabelledImages
    from edgeport_runtime.bundle.contract import Contract

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
        return np.delete(self._images.targets, list(self._unusable), axis=0)

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
        num_golden: how many of them are the user's own.
        calibration: images without labels, if there are any.
        evaluation: images with labels, if there are any.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        contract: Contract,
        *,
        golden: list[NDArray[np.float32]],
        num_golden: int,
        calibration: CalibrationImages | None,
        evaluation: EvaluationImages | None,
    ) -> None:
        self._contract = contract
        self._calibration, self._evaluation, self._num_golden = calibration, evaluation, num_golden
        source = evaluation if calibration is None else calibration
        self._probes = golden if source is None else _first(_NUM_PROBES, source.batches())
        self._sources: list[Callable[[], Iterable[NDArray[np.float32]]]] = [lambda: golden] if golden else []
        if calibration is not None:
            self._sources.append(calibration.batches)
        run = _runner(model, contract)
        self._reference = [_joined(run, source()) for source in self._sources]
        self._probe_reference = _joined(run, self._probes)
        self._drop_reference = None if evaluation is None else _joined(run, evaluation.batches())

    def likeness(self, model: onnx.ModelProto) -> Likeness:
        """Compare a candidate's outputs and decisions with the float model's."""
        run = _runner(model, self._contract)
        pairs = [
            (_joined(run, source()), reference_BK)
            for source, reference_BK in zip(self._sources, self._reference, strict=True)
        ]
        relative_l2 = max(
            relative_l2_of_all(*compared(ours_BK, theirs_BK, self._contract)) for ours_BK, theirs_BK in pairs
        )
        counts = [self._num_golden] if len(pairs) > (self._calibration is not None) else []
        if self._calibration is not None:
            is_real = not self._calibration.is_builtin
            counts.append(len(self._calibration) - self._calibration.num_unreadable if is_real else 0)
        if self._evaluation is not None and len(self._evaluation.targets) > max(counts, default=0):
            assert self._drop_reference is not None
            pairs.append((_joined(run, self._evaluation.batches()), self._drop_reference))
            counts.append(len(self._evaluation.targets))
        num_images, (ours_BK, theirs_BK) = max(zip(counts, pairs, strict=True), key=lambda pair: pair[0])
        is_equal_BK = decisions(ours_BK, self._contract) == decisions(theirs_BK, self._contract)
        return Likeness(relative_l2, num_images, int(is_equal_BK[:num_images].all(axis=1).sum()))

    def probe(self, model: onnx.ModelProto) -> float:
        """Signal to quantization noise at the outputs, in decibels, on a few images."""
        outputs_BK = _joined(_runner(model, self._contract), self._probes)
        return signal_to_noise(*compared(outputs_BK, self._probe_reference, self._contract))

    def drop(self, model: onnx.ModelProto) -> Drop:
        """What is lost on the labelled images, or else how many of the calibration images are decided differently."""
        run = _runner(model, self._contract)
        if self._evaluation is None:
            assert self._calibration is not None
            outputs_BK = _joined(run, self._calibration.batches())
            return measure_drop(outputs_BK, self._reference[-1], None, self._contract)
        outputs_BK = _joined(run, self._evaluation.batches())
        assert self._drop_reference is not None
        targets = self._evaluation.targets
        num_images = len(targets)  # a fixed batch may have been filled up
        return measure_drop(outputs_BK[:num_images], self._drop_reference[:num_images], targets, self._contract)


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
