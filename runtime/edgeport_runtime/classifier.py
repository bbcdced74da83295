"""The runtime's front door: a bundle in, predictions out. Shapes: B batch, C channels, H W image, K classes."""

from __future__ import annotations

import functools
import itertools
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from edgeport_runtime.engine.batches import run_each, run_in_batches
from edgeport_runtime.errors import InputError, SessionError
from edgeport_runtime.hub import is_address
from edgeport_runtime.outputs.predictions import Prediction, StreamResult, predictions_of
from edgeport_runtime.outputs.tasks import probabilities

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from edgeport_runtime.engine.session import Session
    from edgeport_runtime.loading.load import LoadedModel
    from edgeport_runtime.outputs.heat import Heatmap
    from edgeport_runtime.pixels.decode import ArrayColor, ImageSource
    from edgeport_runtime.stream import Streamed

__all__ = ["Classifier", "Prediction", "StreamResult"]

_BATCH = 8  # images preprocessed and run together: bounds memory for any number of images


class Classifier:
    """A loaded model with its preprocessing and labels; made by ``load``, safe to share between threads.

    Attributes:
        contract: what the model takes and what its output means.
        manifest: the bundle's manifest, None for a lone ``.onnx``.
        variant: the variant in use, None for a lone ``.onnx``.
        device: the device in use, such as ``cpu``.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._session: Session | None = model.session
        self._reopen = model.reopen
        self._stream_session: Session | None = None
        self._side = model.side
        self._lock = threading.Lock()
        self.contract = model.contract
        self.manifest = model.manifest
        self.variant = model.variant
        self.device = model.provider.device
        self._provider = model.provider
        self._reasons = model.reasons
        self._has_dynamic_ranges = model.has_dynamic_ranges

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        variant: str = "auto",
        threads: int | None = None,
        strict: bool = False,
        low_memory: bool = False,
        spin: bool = True,
        verify: bool = False,
        contract: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    ) -> Self:
        """Load a bundle or a lone ``.onnx``.

        Args:
            path: the bundle's folder, or the file; or ``hf://OWNER/NAME[@REVISION]``, a bundle in a repository of the
                Hugging Face hub, of which the manifest and the chosen variant are brought, and their digests checked.
            device: a device by name (``run-model doctor`` lists them), which must be usable; or ``auto``: CUDA or
                OpenVINO if one can be used, else ``cpu``. ``explain`` tells which and why.
            variant: the name of one of the bundle's variants; ``int8`` is the one for the device; ``auto`` is the
                fastest one if that was measured on this machine, or elsewhere with instructions that this machine
                has, else ``fp32``.
            threads: threads to compute with; None takes as many as ONNX Runtime finds cores, or fewer where a
                container allows fewer.
            strict: raise if any node of the graph would run elsewhere than on ``device``.
            low_memory: keep no memory between calls and no repacked weights; slower.
            spin: let idle threads wait for the next call at full load; False leaves the processors to others.
            verify: replay the bundle's golden images, and raise if the outputs are not PyTorch's.
            contract: of a lone ``.onnx`` that EdgePort did not write, how an image becomes its input and what its
                output means: options by name (``image_size``, ``mean``, ``std``, ``color``, ``labels`` and others, as
                ``run-model predict --help`` lists them), or the path of a JSON file of them. Nothing proves it.

        Raises:
            ManifestError: if the bundle is incomplete, altered, or of a later version.
            InputError: if the device, the variant or the number of threads is not possible, or the repository cannot
                be had.
            SessionError: if ONNX Runtime is missing or cannot load the model, or the device cannot be used.
            ParityError: if ``verify`` fails.
        """
        from edgeport_runtime.engine.session import SessionSettings
        from edgeport_runtime.loading.load import load_model

        settings = SessionSettings(threads=threads, spins=spin, is_strict=strict, has_low_memory=low_memory)
        remote = None
        if is_address(path):
            from edgeport_runtime.loading.remote import RemoteBundle

            remote = RemoteBundle(str(path))
        folder = Path(path) if remote is None else remote.folder
        model = load_model(
            folder,
            device=device,
            variant=variant,
            settings=settings,
            contract=contract,
            bring=None if remote is None else remote.bring,
        )
        classifier = cls(model)
        if verify:
            from edgeport_runtime.accuracy.golden import check

            if remote is not None:
                remote.bring(remote.manifest.golden.digests)
            check(classifier, folder)
        return classifier

    @classmethod
    def load_exactly(
        cls,
        path: Path,
        *,
        variant: str,
        device: str,
        threads: int | None = None,
        low_memory: bool = False,
        spin: bool = True,
    ) -> Self:
        """As ``load``, of the variant of that very name, for what measures or compares the files of a bundle.

        To ``load`` the name ``int8`` means the int8 variant for the device; here it is ``model.int8.onnx``.
        """
        from edgeport_runtime.engine.session import SessionSettings
        from edgeport_runtime.loading.load import load_model

        settings = SessionSettings(threads=threads, spins=spin, has_low_memory=low_memory)
        return cls(load_model(path, device=device, variant=variant, settings=settings, is_exact=True))

    def explain(self) -> dict[str, Any]:
        """What runs where, and why, as JSON types.

        Returns:
            ``device``, ``variant``, ``precision`` (what the device executes the variant in), ``reasons`` of the
            choices, ``threads`` (None: ONNX Runtime's choice), ``prepared`` (True for what
            ``run-model tune`` prepared, whose weights are mapped), and ``assignment``: for each of ONNX Runtime's
            providers how many nodes of which operator it runs, None where ONNX Runtime is too old to tell.

        Raises:
            SessionError: if the classifier was closed.
        """
        session = self._opened()
        assignment = session.assignment
        return {
            "device": self.device,
            "variant": None if self.variant is None else self.variant.name,
            "precision": self._provider.executed(None if self.variant is None else self.variant.precision),
            "reasons": list(self._reasons),
            "threads": session.settings.threads,
            "prepared": session.settings.is_prepared,
            "assignment": None
            if assignment is None
            else {name: dict(Counter(operators).most_common()) for name, operators in assignment.items()},
        }

    def predict(self, image: ImageSource, top_k: int = 5, *, color: ArrayColor = "rgb") -> list[Prediction]:
        """Classify one image.

        Args:
            image: a path, the bytes of an image file, a binary file (read from its start), a PIL image, or a uint8
                array HWC, whose channels are in RGB order unless ``color`` says otherwise.
            top_k: how many classes to return, at most all of them.
            color: order of an array's channels; ``bgr`` for arrays of OpenCV. Only for arrays: other images say
                themselves what their colours are.

        Returns:
            The most probable classes, best first; of a binary model the decided class first.

        Raises:
            InputError: if the image cannot be used.
            SessionError: if the model fails, or was closed.
        """
        return self.predict_batch([image], top_k, color=color)[0]

    def predict_batch(
        self, images: Iterable[ImageSource], top_k: int = 5, *, color: ArrayColor = "rgb"
    ) -> list[list[Prediction]]:
        """Classify several images; one list as ``predict`` gives for each, in their order."""
        _check_count(top_k, "top_k")
        return [predictions_of(outputs_K, self.contract, top_k) for outputs_K in self.iter_outputs(images, color=color)]

    def stream(
        self,
        items: Iterable[ImageSource],
        *,
        batch_size: int = _BATCH,
        workers: int | None = None,
        top_k: int = 5,
        color: ArrayColor = "rgb",
    ) -> Iterator[StreamResult]:
        """Classify any number of images with all processors at work; memory does not grow with them.

        Every worker decodes, preprocesses and runs a batch of its own; on a CPU each with one thread, in a session
        that all of them share. Images are taken from ``items`` a few batches ahead. One that cannot be used gives its
        error as its result, and the stream goes on.

        Args:
            items: images as ``predict`` takes them.
            batch_size: images that are run together.
            workers: threads; None takes as many as there are processors for this process.
            top_k: how many classes to return.
            color: order of the channels of arrays, as of ``predict``.

        Returns:
            One result for each item, in their order.

        Raises:
            InputError: if an argument is wrong.
            SessionError: if the model fails, or was closed.
        """
        for name, value in (("batch_size", batch_size), ("top_k", top_k)):
            _check_count(value, name)
        if workers is not None:
            _check_count(workers, "workers")
        prepare = self._preparation(color)

        def results() -> Iterator[StreamResult]:
            for item, outputs_K, error in self._stream_outputs(items, prepare, batch_size, workers):
                predictions = None if outputs_K is None else predictions_of(outputs_K, self.contract, top_k)
                yield StreamResult(item, predictions, error)

        return results()

    def iter_outputs(
        self, images: Iterable[ImageSource], *, color: ArrayColor = "rgb"
    ) -> Iterator[NDArray[np.float32]]:
        """Preprocess and run images; what the graph gives for each (K,), in their order.

        Raises:
            InputError: if an image cannot be used.
            SessionError: if the model fails, or was closed.
        """
        for result in self.iter_results(images, color=color):
            if result.error is not None:
                raise result.error
            assert result.outputs is not None
            yield result.outputs

    def iter_results(self, images: Iterable[ImageSource], *, color: ArrayColor = "rgb") -> Iterator[Streamed]:
        """As ``iter_outputs``, but an image that cannot be used gives its error, and the others go on."""
        from edgeport_runtime.stream import run_batch

        prepare = self._preparation(color)
        source = iter(images)
        few = itertools.islice(source, _BATCH)
        yield from run_batch(few, prepare, lambda x_BCHW: self._run_images(self._opened(), x_BCHW))
        for ninth in itertools.islice(source, 1):  # there are more, which are worth threads and a session for them
            yield from self._stream_outputs(itertools.chain([ninth], source), prepare, _BATCH, None)

    def heatmap(
        self,
        image: ImageSource,
        label: str | int | None = None,
        *,
        method: Literal["auto", "occlusion"] = "auto",
        color: ArrayColor = "rgb",
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Heatmap:
        """Find the region of an image that speaks for a class.

        Args:
            image: as of ``predict``.
            label: the class by its name or number; None takes the first that ``predict`` gives.
            method: ``auto`` takes the graph that ``export-model --evidence`` wrote beside the variant, and occlusion
                where there is none; ``occlusion`` hides one part after the other and runs the network each time.
            color: order of an array's channels, as of ``predict``.
            on_progress: is told how many of how many places occlusion has hidden.

        Raises:
            InputError: if the image cannot be used, or there is no such class.
            ManifestError: if the graph with the evidence is not the one that was exported.
            SessionError: if the model fails, or was closed.
        """
        from edgeport_runtime.outputs import heat
        from edgeport_runtime.pixels.decode import load_image, name_of
        from edgeport_runtime.pixels.preprocess import normalize, pixels_of

        if method not in ("auto", "occlusion"):
            raise InputError(f"method is {method!r}; choose one of auto, occlusion")
        contract, session = self.contract, self._opened()
        photo = load_image(image, contract.preprocess.mode, color=color, bits=contract.preprocess.bits)
        x_1CHW = normalize(pixels_of(photo, contract.preprocess, name=name_of(image)), contract.preprocess)[np.newaxis]
        found = predictions_of(self._run_images(session, x_1CHW)[0], contract, contract.num_classes)
        chosen = heat.chosen_class(found, contract, label)
        source = self._side.evidence(session.settings) if method == "auto" else None
        if isinstance(source, str | None):
            values = heat.occlude(
                x_1CHW[0],
                lambda x_BCHW: heat.scores_of(self._run_images(session, x_BCHW), chosen.index, contract),
                on_progress=on_progress,
            )
            return heat.heatmap_of(values, "occlusion", chosen, photo, contract, reason=source)
        values = heat.read_map(source.maps, x_1CHW, chosen.index, contract)
        return heat.heatmap_of(values, source.method, chosen, photo, contract)

    def features(self, images: Iterable[ImageSource], *, color: ArrayColor = "rgb") -> NDArray[np.float32]:
        """Give what the network's last linear layer reads, for search and for drift.

        The bundle must have been exported with ``--features``.

        Args:
            images: as of ``predict_batch``.
            color: order of the channels of arrays.

        Returns:
            float32 (N, D).

        Raises:
            InputError: if an image cannot be used, or the bundle was exported without features.
            ManifestError: if the graph is not the one that was exported.
            SessionError: if the model fails, or was closed.
        """
        session = self._side.features(self._opened().settings)
        prepare = self._preparation(color)
        source = iter(images)
        parts = [np.zeros((0, int(session.output_shape[1])), np.float32)]
        while batch := [prepare(image) for image in itertools.islice(source, _BATCH)]:
            parts.append(self._run_images(session, np.stack(batch)))
        return np.concatenate(parts)

    def logits(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on preprocessed input.

        The images are one input: a variant with dynamic ranges (int8 of a ViT or LeNet-5) takes them over all of it, so
        that an image's outputs depend on its neighbours. ``predict``, ``predict_batch`` and ``stream`` run
        such a variant on one image per call. With a fixed batch, the input is cut into batches of that size.

        Args:
            x_BCHW: float32, preprocessed as ``contract.preprocess`` says.

        Returns:
            float32 (B, K).

        Raises:
            InputError: if the type or shape is wrong, a value is not finite, or the graph gives probabilities only.
            SessionError: if the model fails, or was closed.
        """
        if self.contract.output != "logits":
            raise InputError("this model has its activation in the graph and returns no logits; use probabilities()")
        return self.outputs(x_BCHW)

    def probabilities(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float64]:
        """Run the network on preprocessed input; arguments and errors as ``logits``.

        Returns:
            float64 (B, K): softmax over the classes, or a sigmoid each, by the contract's task.
        """
        return probabilities(self.outputs(x_BCHW), self.contract)

    def close(self) -> None:
        """Free the model. Calls that are running finish; later ones raise SessionError."""
        self._session = self._stream_session = None
        self._side.close()

    def outputs(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the graph gives for preprocessed input (B, K): ``contract.output``; as ``logits`` otherwise."""
        return self._run(self._opened(), x_BCHW)

    def _opened(self) -> Session:
        session = self._session
        if session is None:
            raise SessionError("this classifier was closed; load it again")
        return session

    def _run(self, session: Session, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        self._check_input(x_BCHW)
        return run_in_batches(session.run, x_BCHW, self.contract.batch)

    def _run_images(self, session: Session, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images of which each is an input of its own."""
        run = run_each if self._has_dynamic_ranges else run_in_batches
        return run(session.run, x_BCHW, self.contract.batch)

    def _preparation(self, color: ArrayColor) -> Callable[[ImageSource], NDArray[np.float32]]:
        """The preprocessing of images, arrays among them of that order of channels."""
        from edgeport_runtime.pixels.decode import check_color
        from edgeport_runtime.pixels.preprocess import preprocess

        check_color(color)
        return functools.partial(preprocess, spec=self.contract.preprocess, color=color)

    def _stream_outputs(
        self,
        items: Iterable[ImageSource],
        prepare: Callable[[ImageSource], NDArray[np.float32]],
        batch_size: int,
        workers: int | None,
    ) -> Iterator[Streamed]:
        from edgeport_runtime.engine.machine import available_cpus
        from edgeport_runtime.stream import stream_outputs

        session = self._opened()
        workers = workers or available_cpus()
        if self.device == "cpu" and workers > 1:
            with self._lock:
                session = self._stream_session = self._stream_session or self._reopen(
                    replace(session.settings, threads=1)
                )
        yield from stream_outputs(
            items,
            prepare,
            lambda x_BCHW: self._run_images(session, x_BCHW),
            batch_size=batch_size,
            workers=workers,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_input(self, x_BCHW: NDArray[np.float32]) -> None:
        if not isinstance(x_BCHW, np.ndarray) or x_BCHW.dtype != np.float32:
            kind = x_BCHW.dtype if isinstance(x_BCHW, np.ndarray) else type(x_BCHW).__name__
            raise InputError(f"logits() takes a float32 array BCHW, not {kind}; predict() takes images")
        wanted = self.contract.input_shape
        if x_BCHW.ndim != 4 or x_BCHW.shape[1:] != wanted or x_BCHW.shape[0] == 0:
            raise InputError(f"the input has shape {x_BCHW.shape}, not (B, {', '.join(map(str, wanted))}) with B >= 1")
        if not np.isfinite(x_BCHW).all():
            raise InputError("the input contains NaN or infinite values")


def _check_count(value: object, name: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r}; it must be a whole number of at least 1")
