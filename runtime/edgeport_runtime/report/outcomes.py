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
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from edgeport_runtime.accuracy.dataset import LabelledImages
    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.outputs.tasks import OfClasses

__all__ = ["ImageSource", "Seen", "accuracies", "agreements", "flips", "names_of", "true_classes"]

_PART = 1024

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
    first, *others = seen.outputs
    num_images, num_equal = len(seen.images), dict.fromkeys(others, 0)
    for _, found in _parts(seen, contract):
        for name in others:
            num_equal[name] += int((found[name].decided == found[first].decided).all(axis=1).sum())
    return {
        name: {"num_images": num_images, "num_equal": equal, "interval": list(wilson_interval(equal, num_images))}
        for name, equal in num_equal.items()
    }


def flips(seen: Seen, contract: Contract) -> list[dict[str, Any]]:
    """The images that some variant decides otherwise than the first, the largest difference of a probability first.

    Returns:
        For each image its ``path``, its ``image`` (a name for people), what is ``true`` of it (a list of names, None if
        unknown), the ``difference``, and the ``decisions`` of each variant: ``index``, ``label`` and ``score``.
    """
    first, *others = seen.outputs
    names, rows = names_of(seen.images), []
    for start, found in _parts(seen, contract) if others else ():
        pairs = [(found[name], found[first]) for name in others]
        differs_B = np.any([(one.decided != of_first.decided).any(axis=1) for one, of_first in pairs], axis=0)
        distance_B = np.max([np.abs(one.scores - of_first.scores).max(axis=1) for one, of_first in pairs], axis=0)
        for i in map(int, np.flatnonzero(differs_B)):
            row = {
                "path": seen.images[start + i],
                "image": names[start + i],
                "true": true_classes(seen, start + i, contract),
                "difference": round(float(distance_B[i]), 6),
                "decisions": {name: _decided(one, i, contract) for name, one in found.items()},
            }
            rows.append(row)
    return sorted(rows, key=lambda row: -row["difference"])


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


def _parts(seen: Seen, contract: Contract) -> Iterator[tuple[int, dict[str, OfClasses]]]:
    """What the variants decide, a thousand images at a time, and the place of the first of those."""
    for start in range(0, len(seen.images), _PART):
        yield (
            start,
            {
                name: of_classes(outputs_BK[start : start + _PART], contract)
                for name, outputs_BK in seen.outputs.items()
            },
        )


def _decided(found: OfClasses, i: int, contract: Contract) -> list[dict[str, Any]]:
    labels = contract.labels
    return [
        asdict(Decided(index=c, label=None if labels is None else labels[c], score=float(found.scores[i, c])))
        for c in map(int, np.flatnonzero(found.decided[i]))
    ]
