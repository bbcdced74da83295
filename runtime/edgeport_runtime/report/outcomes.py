"""What several variants decide on the same images: where they differ, and how often each is right.

Shapes: B images, K outputs, C classes.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from edgeport_runtime.accuracy.comparison import Decided
from edgeport_runtime.accuracy.evaluate import measure
from edgeport_runtime.outputs.metrics import wilson_interval
from edgeport_runtime.outputs.tasks import of_classes
from edgeport_runtime.report.curves import curves

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgeport_runtime.accuracy.dataset import LabelledImages
    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.outputs.tasks import OfClasses

__all__ = ["ImageSource", "Seen", "accuracies", "agreements", "flips", "names_of", "true_classes"]

ImageSource: TypeAlias = Literal["evaluation", "calibration", "golden", "data", "synthetic"]


class Seen(NamedTuple):
    """Images, and what each variant gives for them.

    Attributes:
        source: where the images come from.
        images: B files.
        outputs: by the variant's name, what its graph gave, float32 (B, K); the first is what the others are held to.
        labelled: the same images with what is true of them; None where that is not known.
    """

    source: ImageSource
    images: Sequence[Path]
    outputs: Mapping[str, NDArray[np.float32]]
    labelled: LabelledImages | None = None


def agreements(seen: Seen, contract: Contract) -> dict[str, dict[str, Any]]:
    """For each variant but the first, on how many images it decides as the first, and the 95% interval of that share.

    Returns:
        By name, ``num_images``, ``num_equal`` and ``interval`` (Wilson 1927).
    """
    found = _by_variant(seen, contract)
    first, num_images = next(iter(found.values())).decided, len(seen.images)
    result = {}
    for name, one in list(found.items())[1:]:
        num_equal = int((one.decided == first).all(axis=1).sum())
        result[name] = {
            "num_images": num_images,
            "num_equal": num_equal,
            "interval": list(wilson_interval(num_equal, num_images)),
        }
    return result


def flips(seen: Seen, contract: Contract) -> list[dict[str, Any]]:
    """The images that some variant decides otherwise than the first, the largest difference of a probability first.

    Returns:
        For each image its ``path``, its ``image`` (a name for people), what is ``true`` of it (a list of names, None if
        unknown), the ``difference``, and the ``decisions`` of each variant: ``index``, ``label`` and ``score``.
    """
    found = _by_variant(seen, contract)
    first, *others = found.values()
    if not others:
        return []
    differs_B = np.any([(one.decided != first.decided).any(axis=1) for one in others], axis=0)
    distance_B = np.max([np.abs(one.scores - first.scores).max(axis=1) for one in others], axis=0)
    names, labels = names_of(seen.images), contract.labels
    rows = []
    for i in sorted(np.flatnonzero(differs_B), key=lambda i: -distance_B[i]):
        decisions = {
            name: [
                asdict(
                    Decided(index=int(c), label=None if labels is None else labels[c], score=float(one.scores[i, c]))
                )
                for c in np.flatnonzero(one.decided[i])
            ]
            for name, one in found.items()
        }
        rows.append(
            {
                "path": seen.images[int(i)],
                "image": names[i],
                "true": true_classes(seen, int(i), contract),
                "difference": round(float(distance_B[i]), 6),
                "decisions": decisions,
            }
        )
    return rows


def accuracies(seen: Seen, contract: Contract) -> dict[str, dict[str, Any]]:
    """The metrics of each variant on labelled images, and the points of its curves; empty without labels."""
    if seen.labelled is None:
        return {}
    return {
        name: {
            **measure(outputs_BK, seen.labelled, contract).to_dict(),
            **curves(outputs_BK, seen.labelled.targets, contract),
        }
        for name, outputs_BK in seen.outputs.items()
    }


def names_of(paths: Sequence[Path]) -> list[str]:
    """Paths below the folder that all of them have in common."""
    absolute = [Path(os.path.normpath(path.absolute())) for path in paths]
    root = os.path.commonpath([path.parent for path in absolute]) if absolute else ""
    return [path.relative_to(root).as_posix() for path in absolute]


def true_classes(seen: Seen, i: int, contract: Contract) -> list[str] | None:
    """Names of what is true of one of the images; None where that is not known."""
    if seen.labelled is None:
        return None
    target = seen.labelled.targets[i]
    indices = np.flatnonzero(target) if contract.task == "multilabel" else [int(target)]
    return [contract.label(int(index)) for index in indices]


def _by_variant(seen: Seen, contract: Contract) -> dict[str, OfClasses]:
    return {name: of_classes(outputs_BK, contract) for name, outputs_BK in seen.outputs.items()}
