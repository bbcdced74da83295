"""The runtime's front door: a bundle in, predictions out. Shapes: B batch, C channels, H W image, K classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from edgeport_runtime.errors import InputError, SessionError
from edgeport_runtime.metrics import top_k as best_k
from edgeport_runtime.tasks import decisions, probabilities

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from edgeport_runtime.contract import Contract
    from edgeport_runtime.images import ImageSource
    from edgeport_runtime.manifest import Manifest, Variant
    from edgeport_runtime.session import Session

__all__ = ["Classifier", "Prediction"]

_BATCH = 8  # images preprocessed and run together: bounds memory for any number of images


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class.

    Attributes:
        index: of the class.
        label: its name, None where labels are not known.
        score: its probability.
        is_decided: True for the class that the model decides on: the most probable one of a multi-class model, the one
            on its side of the threshold of a binary model, each that reaches its threshold of a multi-label model.
    """

    index: int
    label: str | None
    score: float
    is_decided: bool


class Classifier:
    """A loaded model with its preprocessing and labels; made by :meth:`load`, safe to share between threads.

    Attributes:
        contract: what the model takes and what its output means.
        manifest: the bundle's manifest, None for a lone ``.onnx``.
        variant: the variant in use, None for a lone ``.onnx``.
        device: the device in use, such as ``cpu``.
    """

    def __init__(
        self, session: Session, contract: Contract, *, manifest: Manifest | None, variant: Variant | None, device: str
    ) -> None:
        self._session: Session | None = session
        self.contract = contract
        self.manifest = manifest
        self.variant = variant
        self.device = device

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        variant: str = "auto",
        threads: int | None = None,
    ) -> Self:
        """Load a bundle or a lone ``.onnx`` that EdgePort wrote.

        Args:
            path: the bundle's folder, or the file.
            device: ``auto`` or ``cpu``.
            variant: the name of one of the bundle's variants, or ``auto``: the fastest one if that was measured on
                this machine, else ``fp32``.
            threads: threads to compute with; None leaves it to ONNX Runtime.

        Raises:
            ManifestError: if the bundle is incomplete, altered, or of a later version.
            InputError: if the device, the variant or the number of threads is not possible.
            SessionError: if ONNX Runtime is missing or cannot load the model.
        """
        from edgeport_runtime.loading import load_model

        model = load_model(Path(path), device=device, variant=variant, threads=threads)
        return cls(model.session, model.contract, manifest=model.manifest, variant=model.variant, device=model.device)

    def predict(self, image: ImageSource, top_k: int = 5) -> list[Prediction]:
        """Classify one image.

        Args:
            image: a path, the bytes of an image file, a PIL image, or a uint8 array HWC in RGB order.
            top_k: how many classes to return, at most all of them.

        Returns:
            The most probable classes, best first; of a binary model the decided class first.

        Raises:
            InputError: if the image cannot be used.
            SessionError: if the model fails, or was closed.
        """
        return self.predict_batch([image], top_k)[0]

    def predict_batch(self, images: Iterable[ImageSource], top_k: int = 5) -> list[list[Prediction]]:
        """Classify several images; one list as :meth:`predict` gives for each, in their order."""
        if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
            raise InputError(f"top_k is {top_k!r}; give a whole number of at least 1")
        return [self._predictions(outputs_K, top_k) for outputs_K in self.iter_outputs(images)]

    def iter_outputs(self, images: Iterable[ImageSource]) -> Iterator[NDArray[np.float32]]:
        """Preprocess and run images a few at a time; what the graph gives for each (K,), in their order.

        Raises:
            InputError: if an image cannot be used.
            SessionError: if the model fails, or was closed.
        """
        from edgeport_runtime.preprocess import preprocess

        pending: list[NDArray[np.float32]] = []
        for image in images:
            pending.append(preprocess(image, self.contract.preprocess))
            if len(pending) == _BATCH:
                yield from self.outputs(np.stack(pending))
                pending.clear()
        if pending:
            yield from self.outputs(np.stack(pending))

    def logits(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on preprocessed input.

        With a fixed batch, the input is cut into batches of that size and the last one padded with zeros.

        Args:
            x_BCHW: float32, preprocessed as ``contract.preprocess`` says.

        Returns:
            float32 (B, K).

        Raises:
            InputError: if the type or shape is wrong, a value is not finite, or the graph gives probabilities only.
            SessionError: if the model fails, or was closed.
        """
        if self.contract.output != "logits":
            raise InputError("this model has its activation in the graph and gives no logits; use probabilities()")
        return self.outputs(x_BCHW)

    def probabilities(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float64]:
        """Run the network on preprocessed input; arguments and errors as :meth:`logits`.

        Returns:
            float64 (B, K): softmax over the classes, or a sigmoid each, by the contract's task.
        """
        return probabilities(self.outputs(x_BCHW), self.contract)

    def close(self) -> None:
        """Free the model. Calls that are running finish; later ones raise SessionError."""
        self._session = None

    def outputs(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the graph gives for preprocessed input (B, K): ``contract.output``; as :meth:`logits` otherwise."""
        session = self._session
        if session is None:
            raise SessionError("this classifier was closed; load it again")
        self._check_input(x_BCHW)
        if self.contract.batch is None:
            return session.run(x_BCHW)
        return _run_in_batches(session, x_BCHW, self.contract.batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_input(self, x_BCHW: NDArray[np.float32]) -> None:
        if not isinstance(x_BCHW, np.ndarray) or x_BCHW.dtype != np.float32:
            kind = x_BCHW.dtype if isinstance(x_BCHW, np.ndarray) else type(x_BCHW).__name__
            raise InputError(f"logits() takes a float32 array BCHW, not {kind}; predict() takes images")
        spec = self.contract.preprocess
        wanted = (spec.num_channels, spec.image_size, spec.image_size)
        if x_BCHW.ndim != 4 or x_BCHW.shape[1:] != wanted or x_BCHW.shape[0] == 0:
            raise InputError(f"the input has shape {x_BCHW.shape}, not (B, {', '.join(map(str, wanted))}) with B >= 1")
        if not np.isfinite(x_BCHW).all():
            raise InputError("the input holds NaN or infinite values")

    def _predictions(self, outputs_K: NDArray[np.float32], k: int) -> list[Prediction]:
        if not np.isfinite(outputs_K).all():
            raise SessionError(
                "the model gave NaN or infinite values; run-model verify tells whether the bundle is sound"
            )
        outputs_1K = outputs_K[np.newaxis]
        scores, decided = probabilities(outputs_1K, self.contract)[0], decisions(outputs_1K, self.contract)[0]
        if self.contract.task == "multilabel":
            order, chosen = best_k(scores, k), set(np.flatnonzero(decided))
        elif self.contract.task == "binary":
            scores = np.array([1 - scores[0], scores[0]])
            order, chosen = np.array([decided[0], 1 - decided[0]])[:k], {decided[0]}
        else:
            order = best_k(outputs_K, k)
            chosen = {order[0]}
        labels = self.contract.labels
        return [
            Prediction(int(i), None if labels is None else labels[i], float(scores[i]), bool(i in chosen))
            for i in order
        ]


def _run_in_batches(session: Session, x_BCHW: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    parts = []
    for start in range(0, len(x_BCHW), batch):
        part = x_BCHW[start : start + batch]
        missing = batch - len(part)
        if missing:
            padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), np.float32)])
            parts.append(session.run(padded)[: len(part)])
        else:
            parts.append(session.run(part))
    return np.concatenate(parts)
