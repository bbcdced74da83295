"""Heat maps of images, as pictures and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgeport_runtime.classifier import Classifier

__all__ = ["check_output", "heatmap_of_each"]


def check_output(output: str | None) -> None:
    """Raise InputError if a picture cannot be written there."""
    if output is None:
        return
    path = Path(output)
    known = Image.registered_extensions()
    if known.get(path.suffix.lower()) not in Image.SAVE:
        raise InputError(f"{output} does not end like a picture that Pillow writes; name it heat.png, for example")
    if not path.absolute().parent.is_dir():
        raise InputError(f"the folder of {output} does not exist")


def heatmap_of_each(
    classifier: Classifier,
    images: Sequence[str],
    *,
    label: str | None,
    method: Any,
    output: str | None,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[dict[str, Any]]:
    """Find the region of each image, and write it as a picture.

    Args:
        classifier: the model.
        images: their paths.
        label: class by its name or number; None for the one that is predicted.
        method: as of ``Classifier.heatmap``.
        output: the picture of a single image; of several, the pictures have a number after the name.
        on_progress: as of ``Classifier.heatmap``.

    Returns:
        For each image its path as ``image``, with ``file`` (None if no picture was asked for) and what
        ``Heatmap.to_dict`` has, or with ``error``.
    """
    wanted = (
        int(label)
        if label is not None and label.isdigit() and label not in (classifier.contract.labels or ())
        else label
    )
    for i, image in enumerate(images):
        try:
            found = classifier.heatmap(image, wanted, method=method, on_progress=on_progress)
        except InputError as error:
            yield {"image": image, "error": str(error)}
            continue
        file = None
        if output is not None:
            path = Path(output)
            file = str(path if len(images) == 1 else path.with_stem(f"{path.stem}-{i + 1}"))
            found.overlay().save(file)
        yield {"image": image, "file": file, **found.to_dict()}
