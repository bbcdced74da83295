"""Two models on the same images, with outputs that are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from contracts import make_contract
from edgeport_runtime.accuracy.comparison import compare
from edgeport_runtime.errors import InputError, SessionError
from edgeport_runtime.stream import Streamed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgeport_runtime.bundle.contract import Contract

IMAGES = [Path(f"{i}.png") for i in range(4)]


@dataclass
class Known:
    """A model that gives outputs in their order; None stands for an image that it cannot use."""

    contract: Contract
    outputs: list[list[float] | None]
    variant: Any = None
    device: str = "cpu"

    def iter_results(self, images: Iterable[Path]) -> Iterator[Streamed]:
        for path, row in zip(images, self.outputs, strict=True):
            error = InputError(f"{path} is damaged") if row is None else None
            yield Streamed(path, None if row is None else np.array(row, np.float32), error)


def _compare(contract: Contract, first: Any, second: Any, targets: Any = None) -> Any:
    truth = None if targets is None else np.array(targets)
    return compare(Known(contract, first), Known(contract, second), IMAGES[: len(first)], truth)


def test_classes_that_flip_come_with_their_scores_worst_first() -> None:
    contract = make_contract("multiclass", 3, labels=("cat", "dog", "owl"))
    first = [[5.0, 0, 0], [0, 1.0, 0], [0, 0, 2.0], [4.0, 0, 0]]
    second = [[5.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0], [0, 4.0, 0]]
    found = _compare(contract, first, second, [0, 1, 2, 1])
    assert (found.num_images, found.num_equal, found.agreement) == (4, 2, 0.5)
    assert [flip.image for flip in found.flips] == ["3.png", "1.png"]
    worst = found.flips[0]
    share = np.exp(4) / (np.exp(4) + 2)
    assert [(d.index, d.label, pytest.approx(d.score)) for d in (*worst.first, *worst.second)] == [
        (0, "cat", share),
        (1, "dog", share),
    ]
    assert worst.true == (1,)
    assert worst.difference == pytest.approx(share - 1 / (np.exp(4) + 2))
    assert tuple(found.labelled) == (2, 1, 1, 0)
    assert found.labelled.p_value == 1.0
    changes = {c.label: (c.num_first, c.num_second, c.num_true, c.right_first, c.right_second) for c in found.classes}
    assert changes == {"cat": (2, 2, 1, 1, 1), "dog": (1, 1, 2, 1, 1), "owl": (1, 1, 1, 1, 1)}


def test_binary_models_flip_at_their_thresholds() -> None:
    contract = make_contract("binary", labels=("no", "yes"))
    found = _compare(contract, [[0.1], [-3.0]], [[-0.1], [-2.0]], [1, 0])
    assert (found.num_equal, tuple(found.labelled)) == (1, (1, 1, 0, 0))
    (flip,) = found.flips
    assert (flip.first[0].label, flip.second[0].label, flip.true) == ("yes", "no", (1,))
    assert flip.first[0].score == pytest.approx(1 / (1 + np.exp(-0.1)))
    assert flip.second[0].score == pytest.approx(1 / (1 + np.exp(-0.1)))


def test_multi_label_models_are_equal_where_every_label_is() -> None:
    contract = make_contract("multilabel", 3, labels=("cat", "dog", "owl"))
    first, second = [[3.0, 3.0, -3.0], [-1.0, -1.0, -1.0]], [[3.0, -3.0, -3.0], [-2.0, -2.0, -2.0]]
    found = _compare(contract, first, second, [[1, 0, 0], [0, 0, 0]])
    assert (found.num_images, found.num_equal) == (2, 1)
    (flip,) = found.flips
    assert ([d.label for d in flip.first], [d.label for d in flip.second], flip.true) == (["cat", "dog"], ["cat"], (0,))
    assert tuple(found.labelled) == (1, 0, 1, 0)


def test_images_that_one_cannot_use_are_in_no_figure() -> None:
    contract = make_contract("multiclass", 2)
    found = _compare(contract, [[1.0, 0], None, [0, 1.0]], [[1.0, 0], [0, 1.0], None])
    assert (found.num_images, found.num_equal, found.labelled) == (1, 1, None)
    assert [image.path for image in found.unusable] == ["1.png", "2.png"]
    with pytest.raises(InputError, match=r"none of the 1 images can be used; the first: 0\.png is damaged"):
        _compare(contract, [None], [[1.0, 0]])


def test_outputs_that_are_not_finite_are_no_decision() -> None:
    contract = make_contract("multiclass", 2)
    with pytest.raises(SessionError, match="returned NaN or infinite values"):
        _compare(contract, [[np.nan, 0]], [[0, 1.0]])


def test_models_of_other_classes_are_refused() -> None:
    cats = make_contract("multiclass", 2, labels=("cat", "dog"))
    row: list[list[float] | None] = [[1.0, 0.0]]
    with pytest.raises(InputError, match=r"class 0 is 'cat' of A and 'dog' of B"):
        compare(Known(cats, row), Known(make_contract("multiclass", 2, labels=("dog", "cat")), row), IMAGES[:1])
    with pytest.raises(InputError, match="num classes is 2 of A and 3 of B"):
        compare(Known(cats, row), Known(make_contract("multiclass", 3), row), IMAGES[:1])
    with pytest.raises(InputError, match="task is multiclass of A and multilabel of B"):
        compare(Known(cats, row), Known(make_contract("multilabel", 2), row), IMAGES[:1])
    named = compare(Known(make_contract("multiclass", 2), row), Known(cats, [[0.0, 1.0]]), IMAGES[:1])
    assert named.flips[0].first[0].label == "cat"
