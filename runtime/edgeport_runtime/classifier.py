"""The runtime's front door: a bundle in, predictions out. Shapes: B batch, C channels, H W image, K classes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from edgeport_runtime.errors import InputError, ManifestError, SessionError
from edgeport_runtime.manifest import CONTRACT_KEY, Contract, Manifest, Variant, bundle_file, load_manifest
from edgeport_runtime.metrics import softmax
from edgeport_runtime.metrics import top_k as best_k
from edgeport_runtime.preprocess import preprocess
from edgeport_runtime.providers import resolve_device
from edgeport_runtime.session import Session

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from edgeport_runtime.images import ImageSource

__all__ = ["Classifier", "Prediction", "sha256_of"]

_BATCH = 8  # images preprocessed and run together: bounds memory for any number of images


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class: its index, its label (None where labels are not known), and its probability."""

    index: int
    label: str | None
    score: float


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
            variant: ``auto``, or the name of one of the bundle's variants.
            threads: threads to compute with; None leaves it to ONNX Runtime.

        Raises:
            ManifestError: if the bundle is incomplete, altered, or of a later version.
            InputError: if the device, the variant or the number of threads is not possible.
            SessionError: if ONNX Runtime is missing or cannot load the model.
        """
        if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
            raise InputError(f"threads is {threads!r}; give a whole number of at least 1, or None")
        provider = resolve_device(device)
        path = Path(path)
        if not path.exists():
            raise InputError(f"{path} does not exist; give a bundle (a folder made by export-model) or its .onnx file")
        if path.is_dir():
            manifest = load_manifest(path)
            chosen = _choose(manifest, variant)
            file = _verified_file(path, chosen)
            session = Session(file, provider=provider, threads=threads)
            _check_graph(session, manifest.contract, file)
            return cls(session, manifest.contract, manifest=manifest, variant=chosen, device=provider.device)
        if variant != "auto":
            raise InputError(f"{path} is one model file; variant={variant!r} needs the bundle's folder")
        session = Session(path, provider=provider, threads=threads)
        contract = _embedded_contract(session, path)
        _check_graph(session, contract, path)
        return cls(session, contract, manifest=None, variant=None, device=provider.device)

    def predict(self, image: ImageSource, top_k: int = 5) -> list[Prediction]:
        """Classify one image.

        Args:
            image: a path, the bytes of an image file, a PIL image, or a uint8 array HWC in RGB order.
            top_k: how many classes to return, at most all of them.

        Returns:
            The most probable classes, best first.

        Raises:
            InputError: if the image cannot be used.
            SessionError: if the model fails, or was closed.
        """
        return self.predict_batch([image], top_k)[0]

    def predict_batch(self, images: Iterable[ImageSource], top_k: int = 5) -> list[list[Prediction]]:
        """Classify several images; one list as :meth:`predict` gives for each, in their order."""
        if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
            raise InputError(f"top_k is {top_k!r}; give a whole number of at least 1")
        return [self._predictions(logits_K, top_k) for logits_K in self.iter_logits(images)]

    def iter_logits(self, images: Iterable[ImageSource]) -> Iterator[NDArray[np.float32]]:
        """Preprocess and run images a few at a time; the logits (K,) of each, in their order.

        Raises:
            InputError: if an image cannot be used.
            SessionError: if the model fails, or was closed.
        """
        pending: list[NDArray[np.float32]] = []
        for image in images:
            pending.append(preprocess(image, self.contract.preprocess))
            if len(pending) == _BATCH:
                yield from self.logits(np.stack(pending))
                pending.clear()
        if pending:
            yield from self.logits(np.stack(pending))

    def logits(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on preprocessed input.

        With a fixed batch, the input is cut into batches of that size and the last one padded with zeros.

        Args:
            x_BCHW: float32, preprocessed as ``contract.preprocess`` says.

        Returns:
            float32 (B, K).

        Raises:
            InputError: if the type or shape is wrong, or a value is not finite.
            SessionError: if the model fails, or was closed.
        """
        session = self._session
        if session is None:
            raise SessionError("this classifier was closed; load it again")
        self._check_input(x_BCHW)
        if self.contract.batch is None:
            return session.run(x_BCHW)
        return _run_in_batches(session, x_BCHW, self.contract.batch)

    def close(self) -> None:
        """Free the model. Calls that are running finish; later ones raise SessionError."""
        self._session = None

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

    def _predictions(self, logits_K: NDArray[np.float32], k: int) -> list[Prediction]:
        if not np.isfinite(logits_K).all():
            raise SessionError(
                "the model gave NaN or infinite logits; run-model verify tells whether the bundle is sound"
            )
        scores_K = softmax(logits_K)
        labels = self.contract.labels
        return [
            Prediction(int(i), None if labels is None else labels[i], float(scores_K[i])) for i in best_k(logits_K, k)
        ]


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _choose(manifest: Manifest, name: str) -> Variant:
    if name == "auto":
        return manifest.variants[0]
    for variant in manifest.variants:
        if variant.name == name:
            return variant
    raise InputError(f"unknown variant {name!r}; this bundle has {', '.join(v.name for v in manifest.variants)}")


def _verified_file(bundle: Path, variant: Variant) -> Path:
    file = bundle_file(bundle, variant.file)
    if sha256_of(file) != variant.sha256:
        raise ManifestError(
            f"{variant.file} is not the file that was exported (its sha256 differs); copy the bundle again"
        )
    return file


def _embedded_contract(session: Session, path: Path) -> Contract:
    text = session.metadata.get(CONTRACT_KEY)
    if text is None:
        raise ManifestError(f"{path} was not written by EdgePort: its metadata has no {CONTRACT_KEY}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: {CONTRACT_KEY} is not JSON: {error}") from None
    return Contract.from_dict(data)


def _check_graph(session: Session, contract: Contract, path: Path) -> None:
    spec = contract.preprocess
    wanted = [spec.num_channels, spec.image_size, spec.image_size]
    is_batch_right = (
        isinstance(session.input_shape[0], str) if contract.batch is None else session.input_shape[0] == contract.batch
    )
    if session.input_shape[1:] != wanted or not is_batch_right or session.output_shape[1:] != [contract.num_classes]:
        raise ManifestError(
            f"{path} maps {session.input_shape} to {session.output_shape}, which is not what the contract says: "
            f"[{contract.batch or 'batch'}, {', '.join(map(str, wanted))}] to {contract.num_classes} classes"
        )


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
