"""What `accuracy` needs from a classifier, so that it need not import the class that users see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.bundle.manifest import Manifest, Variant
    from edgeport_runtime.outputs.predictions import Prediction, StreamResult
    from edgeport_runtime.pixels.decode import ImageSource
    from edgeport_runtime.stream import Streamed

__all__ = ["RunsImages"]


class RunsImages(Protocol):
    """A loaded model that runs images; attributes and methods as of ``Classifier``."""

    contract: Contract
    manifest: Manifest | None
    variant: Variant | None
    device: str

    def iter_outputs(self, images: Iterable[ImageSource]) -> Iterator[NDArray[np.float32]]:
        """What the graph gives for each image (K,), in their order."""
        ...

    def predict(self, image: ImageSource, top_k: int = 5) -> list[Prediction]:
        """The most probable classes of one image, best first."""
        ...

    def stream(
        self, items: Iterable[ImageSource], *, batch_size: int = ..., workers: int | None = None, top_k: int = 5
    ) -> Iterator[StreamResult]:
        """The same for many images, in their order."""
        ...

    def iter_results(self, images: Iterable[ImageSource]) -> Iterator[Streamed]:
        """The same, where an image that cannot be used gives its error, and the others go on."""
        ...

    def explain(self) -> dict[str, Any]:
        """What runs where, and why."""
        ...
