"""The region of a photo that speaks for an answer, and occlusion, which finds it for any network.

Shapes: h w of the map, H W of the network's input, C channels.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.errors import InputError, SessionError
from edgeport_runtime.pixels.preprocess import offsets, resized_sides

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from PIL import Image

    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.bundle.side_files import Method
    from edgeport_runtime.outputs.predictions import Prediction
    from edgeport_runtime.pixels.preprocess import PreprocessSpec

__all__ = [
    "Box",
    "Heatmap",
    "chosen_class",
    "heatmap_of",
    "occlude",
    "place_input",
    "read_map",
    "scores_of",
    "seed_of",
]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

_NUM_CELLS = 14
_BATCH = 8
_MAX_PHOTO = 1024
_EPSILON = 1e-7  # of a probability, in float32


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Heatmap:
    """What speaks for a class, over a photo.

    Attributes:
        values: float32 (h, w): the more, the more speaks for the class. What the numbers are is the method's matter:
            ``cam``: their mean and the last layer's bias add up to the logit; ``grad-cam``: never negative;
            ``attention-rollout``: the share of each patch, the same for all classes; ``occlusion``: by how much the
            log-odds of the class fall where that place is hidden.
        method: how they were found.
        reason: why it was occlusion where nobody asked for that; None otherwise.
        prediction: the class they speak for.
        size: height and width of the photo, upright.
        box: the part of the photo that the network saw; it can reach beyond the photo where that is padded.
        photo: the photo, upright, at most 1024 pixels on a side.
    """

    values: NDArray[np.float32]
    method: Method
    reason: str | None
    prediction: Prediction
    size: tuple[int, int]
    box: Box
    photo: Image.Image = field(repr=False)

    def over(self, height: int, width: int) -> NDArray[np.float32]:
        """The map over the whole photo at some size (height, width) float32; NaN where the network did not look.

        Each of the values stands in the middle of its part of the network's input; between them it is linear.
        """
        left, top, right, bottom = self.box
        rows, has_row = _weights(height, self.size[0], top, bottom, self.values.shape[0])
        columns, has_column = _weights(width, self.size[1], left, right, self.values.shape[1])
        result: NDArray[np.float32] = (rows @ self.values @ columns.T).astype(np.float32)
        result[~(has_row[:, np.newaxis] & has_column)] = np.nan
        return result

    def overlay(self) -> Image.Image:
        """The photo with the map over it, and a colour bar."""
        from edgeport_runtime.outputs.overlay import draw, enlarged

        photo, found = enlarged(self.photo), self.prediction
        name = found.label or f"class {found.index}"
        low, high = float(self.values.min()), float(self.values.max())
        lowest = max(low, 0.0) if high > 0 else low  # what speaks against the class is not shown
        return draw(
            photo,
            self.over(photo.height, photo.width),
            ends=(lowest, high),
            lines=(f"{name} {found.score:.1%}", self.method),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; ``map`` has a list for each row."""
        return {
            "label": self.prediction.label,
            "index": self.prediction.index,
            "score": self.prediction.score,
            "method": self.method,
            "reason": self.reason,
            "size": list(self.size),
            "box": list(self.box),
            "map": [[float(f"{value:.6g}") for value in row] for row in self.values.tolist()],
        }


def place_input(size: tuple[int, int], spec: PreprocessSpec) -> Box:
    """The part of an upright photo of that height and width that becomes the network's input, in its pixels."""
    height, width = size
    new_height, new_width = resized_sides(height, width, spec)
    top, left = offsets(new_height, new_width, spec)
    rows, columns = spec.image_sides
    down, across = height / new_height, width / new_width
    return left * across, top * down, (left + columns) * across, (top + rows) * down


def chosen_class(predictions: list[Prediction], contract: Contract, label: str | int | None) -> Prediction:
    """The class of that name or number; None takes the first.

    Raises:
        InputError: naming the closest, if there is no such class.
    """
    if label is None:
        return predictions[0]
    for prediction in predictions:
        if label in (prediction.index, contract.label(prediction.index)):
            return prediction
    closest = difflib.get_close_matches(str(label), contract.labels or (), n=3)
    hint = f"closest: {', '.join(closest)}; " if closest else ""
    raise InputError(f"no class is called {label!r}; {hint}there are {contract.num_classes}")


def seed_of(index: int, contract: Contract) -> NDArray[np.float32]:
    """What each output weighs in the one that speaks for a class (1, K); of a binary model it speaks for either."""
    seed_1K = np.zeros((1, contract.num_outputs), np.float32)
    if contract.task == "binary":
        seed_1K[0, 0] = 1 if index == 1 else -1
    else:
        seed_1K[0, index] = 1
    return seed_1K


def scores_of(outputs_BK: NDArray[np.float32], index: int, contract: Contract) -> NDArray[np.float64]:
    """The log-odds of a class (B,): its probability alone would hardly move where the model is sure."""
    odds_BK: NDArray[np.float64]
    if contract.output == "probabilities":
        p_BK = outputs_BK.astype(np.float64).clip(_EPSILON, 1 - _EPSILON)
        odds_BK = np.log(p_BK) - np.log1p(-p_BK)
    elif contract.task == "multiclass" and contract.num_classes > 1:
        rest_BK = np.delete(outputs_BK.astype(np.float64), index, axis=1)
        highest_B1 = rest_BK.max(axis=1, keepdims=True)
        odds_BK = (
            outputs_BK.astype(np.float64) - highest_B1 - np.log(np.exp(rest_BK - highest_B1).sum(axis=1, keepdims=True))
        )
    else:
        odds_BK = outputs_BK.astype(np.float64)
    scores_B: NDArray[np.float64] = odds_BK @ seed_of(index, contract)[0]
    return scores_B


def read_map(
    maps: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]],
    x_1CHW: NDArray[np.float32],
    index: int,
    contract: Contract,
) -> NDArray[np.float32]:
    """The map (h, w) of one image for a class, from a graph that gives maps for a batch and what each output weighs."""
    count = contract.batch or 1
    values_hw: NDArray[np.float32] = maps(x_1CHW.repeat(count, axis=0), seed_of(index, contract).repeat(count, axis=0))[
        0
    ]
    return values_hw


def heatmap_of(
    values_hw: NDArray[np.float32],
    method: Method,
    chosen: Prediction,
    photo: Image.Image,
    contract: Contract,
    *,
    reason: str | None = None,
) -> Heatmap:
    """A map with its place in the photo, which is upright and is reduced."""
    if not np.isfinite(values_hw).all():
        raise SessionError("the map holds NaN or infinite values; check the bundle with run-model verify")
    size = photo.height, photo.width
    kept = photo.convert("RGB")
    kept.thumbnail((_MAX_PHOTO, _MAX_PHOTO))
    box = place_input(size, contract.preprocess)
    return Heatmap(values=values_hw, method=method, reason=reason, prediction=chosen, size=size, box=box, photo=kept)


def occlude(
    x_CHW: NDArray[np.float32],
    score: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """By how much a score falls where a part of the input is hidden (Zeiler and Fergus 2014, Section 4.2).

    A window of three cells by three slides over a grid of at most 14 by 14; what it covers gets the input's own mean.

    Args:
        x_CHW: the network's input.
        score: inputs (B, C, H, W) to their scores (B,).
        on_progress: is told how many of how many places are done.

    Returns:
        float32 (h, w), below 0 where the score rises.
    """
    edges = [np.linspace(0, side, min(_NUM_CELLS, side) + 1).round().astype(int) for side in x_CHW.shape[1:]]
    counts = [len(one) - 1 for one in edges]
    filling = x_CHW.mean(axis=(1, 2), keepdims=True)
    places = [(i, j) for i in range(counts[0]) for j in range(counts[1])]
    whole = float(score(x_CHW[np.newaxis])[0])
    found: list[float] = []
    for start in range(0, len(places), _BATCH):
        batch = []
        for i, j in places[start : start + _BATCH]:
            hidden = x_CHW.copy()
            rows = slice(edges[0][max(0, i - 1)], edges[0][min(counts[0], i + 2)])
            columns = slice(edges[1][max(0, j - 1)], edges[1][min(counts[1], j + 2)])
            hidden[:, rows, columns] = filling
            batch.append(hidden)
        found += [whole - float(one) for one in score(np.stack(batch))]
        if on_progress is not None:
            on_progress(len(found), len(places))
    return np.array(found, np.float32).reshape(counts)


def _weights(
    count: int, side: int, start: float, end: float, num_values: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What each value weighs at each of ``count`` places along a side (count, num_values), and where there is any."""
    at = (np.arange(count) + 0.5) * side / count
    place = ((at - start) / (end - start) * num_values - 0.5).clip(0, num_values - 1)
    below = np.minimum(place.astype(int), max(0, num_values - 2))
    weights = np.zeros((count, num_values), np.float32)
    each = np.arange(count)
    weights[each, below] = 1 - (place - below)
    if num_values > 1:
        weights[each, below + 1] = place - below
    return weights, (at >= start) & (at <= end)
