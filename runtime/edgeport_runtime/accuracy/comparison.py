"""Two models on the same images: where they decide otherwise, and which is right more often. B images, C classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeport_runtime.accuracy.evaluation import UnusableImage
from edgeport_runtime.errors import InputError, SessionError
from edgeport_runtime.outputs.metrics import mcnemar, wilson_interval
from edgeport_runtime.outputs.tasks import OfClasses, of_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_runtime.accuracy.protocol import RunsImages
    from edgeport_runtime.bundle.contract import Contract

__all__ = ["ClassChange", "Comparison", "Decided", "Flip", "Labelled", "compare"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """A class that a model decides on: its index, its name (None where it is not known), and its probability."""

    index: int
    label: str | None
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """An image on which the models decide otherwise.

    Attributes:
        image: its path.
        first, second: what each decides: one class, or any number of a multi-label model.
        true: the classes that are true of it; None where that is not known.
        difference: the largest difference of a class's probability between the models.
    """

    image: str
    first: tuple[Decided, ...]
    second: tuple[Decided, ...]
    true: tuple[int, ...] | None
    difference: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassChange:
    """One class in both models: images that each decides for it, and of those that are of it, where that is known.

    Attributes:
        index, label: of the class.
        num_first, num_second: images that the model decides for the class.
        num_true: images of the class; None where labels are not known.
        right_first, right_second: of those, the images that the model decides for it.
    """

    index: int
    label: str | None
    num_first: int
    num_second: int
    num_true: int | None
    right_first: int | None
    right_second: int | None


class Labelled(NamedTuple):
    """How often each model is right: on how many images both, the first alone, the second alone, and neither."""

    both: int
    first_only: int
    second_only: int
    neither: int

    @property
    def p_value(self) -> float:
        """Of McNemar's test: how likely so large a difference is if both models were equally good."""
        return mcnemar(self.first_only, self.second_only)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        num_images = sum(self)
        return {
            **self._asdict(),
            "accuracy_first": (self.both + self.first_only) / num_images,
            "accuracy_second": (self.both + self.second_only) / num_images,
            "p_value": self.p_value,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What the comparison of two models found.

    Attributes:
        num_images: images that both decided on.
        num_equal: those with the same decision: the same class, or of a multi-label model the same classes.
        flips: the others, the largest difference first.
        classes: every class that either model decides for, or that an image has.
        labelled: where labels are known, how often each is right.
        unusable: images that could not be used; they are in no figure.
    """

    num_images: int
    num_equal: int
    flips: tuple[Flip, ...]
    classes: tuple[ClassChange, ...]
    labelled: Labelled | None
    unusable: tuple[UnusableImage, ...] = field(default=())

    @property
    def agreement(self) -> float:
        """Fraction of images with the same decision."""
        return self.num_equal / self.num_images

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the agreement (Wilson 1927)."""
        return wilson_interval(self.num_equal, self.num_images)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "num_images": self.num_images,
            "num_equal": self.num_equal,
            "agreement": self.agreement,
            "interval": list(self.interval),
            "labelled": None if self.labelled is None else self.labelled.to_dict(),
            "flips": [asdict(flip) for flip in self.flips],
            "classes": [asdict(change) for change in self.classes],
            "unusable": [asdict(image) for image in self.unusable],
        }


def compare(
    first: RunsImages,
    second: RunsImages,
    images: Sequence[Path],
    targets: NDArray[np.int64] | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Run both models on every image, each with its own preprocessing.

    Args:
        first: a loaded model.
        second: another, of the same task and classes.
        images: B files.
        targets: what is true of them, as ``LabelledImages`` has it; None where
            that is not known.
        on_progress: called with (images done, images in all).

    Raises:
        InputError: if the models' tasks, classes or labels differ, or no image can be used.
        SessionError: if a model fails, or gives NaN or infinite values.
    """
    _check_contracts(first.contract, second.contract)
    contract = second.contract if first.contract.labels is None else first.contract
    unusable: list[UnusableImage] = []
    flips: list[Flip] = []
    rows: list[tuple[NDArray[np.bool_], ...]] = []
    results = zip(images, first.iter_results(images), second.iter_results(images), strict=True)
    for i, (path, one, other) in enumerate(results):
        error = one.error or other.error
        if error is not None:
            unusable.append(UnusableImage(path=str(path), error=str(error)))
        else:
            a, b = _of_classes(one.outputs, first), _of_classes(other.outputs, second)
            is_true_C = None if targets is None else _as_classes(targets[i], contract)
            rows.append((a.decided, b.decided, *([] if is_true_C is None else [is_true_C])))
            if (a.decided != b.decided).any():
                flips.append(_flip(path, a, b, is_true_C, contract))
        if on_progress is not None:
            on_progress(i + 1, len(images))
    if not rows:
        told = f"; the first: {unusable[0].error}" if unusable else ""
        raise InputError(f"none of the {len(images)} images can be used{told}")
    first_BC, second_BC, *rest = (np.stack(column) for column in zip(*rows, strict=True))
    true_BC = rest[0] if rest else None
    return Comparison(
        num_images=len(rows),
        num_equal=len(rows) - len(flips),
        flips=tuple(sorted(flips, key=lambda flip: -flip.difference)),
        classes=_changes(first_BC, second_BC, true_BC, contract),
        labelled=None if true_BC is None else _labelled(first_BC, second_BC, true_BC),
        unusable=tuple(unusable),
    )


def _check_contracts(first: Contract, second: Contract) -> None:
    for name in ("task", "num_classes"):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            raise InputError(f"the models cannot be compared: {name.replace('_', ' ')} is {one} of A and {other} of B")
    if first.labels is None or second.labels is None or first.labels == second.labels:
        return
    i = next(i for i, pair in enumerate(zip(first.labels, second.labels, strict=True)) if pair[0] != pair[1])
    raise InputError(
        f"the models cannot be compared: class {i} is {first.labels[i]!r} of A and {second.labels[i]!r} of B; "
        "export one of them with the labels of the other, if they mean the same"
    )


def _of_classes(outputs_K: NDArray[np.float32] | None, model: RunsImages) -> OfClasses:
    assert outputs_K is not None
    if not np.isfinite(outputs_K).all():
        name = "the model" if model.variant is None else model.variant.name
        raise SessionError(f"{name} on {model.device} returned NaN or infinite values; check it with run-model verify")
    found = of_classes(outputs_K[np.newaxis], model.contract)
    return OfClasses(found.scores[0], found.decided[0])


def _as_classes(target: NDArray[np.int64], contract: Contract) -> NDArray[np.bool_]:
    return target.astype(bool) if contract.task == "multilabel" else _one_hot(target, contract)


def _one_hot(index: NDArray[np.int64], contract: Contract) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = np.arange(contract.num_classes) == index
    return result


def _flip(
    path: Path, first: OfClasses, second: OfClasses, is_true_C: NDArray[np.bool_] | None, contract: Contract
) -> Flip:
    def decided(found: OfClasses) -> tuple[Decided, ...]:
        labels = contract.labels
        return tuple(
            Decided(index=int(i), label=None if labels is None else labels[i], score=float(found.scores[i]))
            for i in np.flatnonzero(found.decided)
        )

    return Flip(
        image=str(path),
        first=decided(first),
        second=decided(second),
        true=None if is_true_C is None else tuple(int(i) for i in np.flatnonzero(is_true_C)),
        difference=float(np.abs(first.scores - second.scores).max()),
    )


def _changes(
    first_BC: NDArray[np.bool_], second_BC: NDArray[np.bool_], true_BC: NDArray[np.bool_] | None, contract: Contract
) -> tuple[ClassChange, ...]:
    is_seen_C = first_BC.any(axis=0) | second_BC.any(axis=0)
    if true_BC is not None:
        is_seen_C |= true_BC.any(axis=0)
    labels = contract.labels

    def right(decided_BC: NDArray[np.bool_], i: np.intp) -> int | None:
        return None if true_BC is None else int((decided_BC[:, i] & true_BC[:, i]).sum())

    return tuple(
        ClassChange(
            index=int(i),
            label=None if labels is None else labels[i],
            num_first=int(first_BC[:, i].sum()),
            num_second=int(second_BC[:, i].sum()),
            num_true=None if true_BC is None else int(true_BC[:, i].sum()),
            right_first=right(first_BC, i),
            right_second=right(second_BC, i),
        )
        for i in np.flatnonzero(is_seen_C)
    )


def _labelled(first_BC: NDArray[np.bool_], second_BC: NDArray[np.bool_], true_BC: NDArray[np.bool_]) -> Labelled:
    first_B, second_B = ((decided_BC == true_BC).all(axis=1) for decided_BC in (first_BC, second_BC))
    return Labelled(
        both=int((first_B & second_B).sum()),
        first_only=int((first_B & ~second_B).sum()),
        second_only=int((~first_B & second_B).sum()),
        neither=int((~first_B & ~second_B).sum()),
    )
