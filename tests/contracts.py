"""Contracts for tests of functions that need no bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeport_runtime.bundle.contract import Contract
from edgeport_runtime.pixels.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from edgeport_runtime.bundle.contract import Task

GREY_32 = PreprocessSpec(
    color="grey",
    resize="exact",
    resize_size=32,
    interpolation="bilinear",
    image_size=32,
    scale="unit",
    mean=(0.5,),
    std=(0.5,),
)


def make_contract(task: Task = "multiclass", num_classes: int = 2, **values: Any) -> Contract:
    """A contract for small grey images, with the usual threshold."""
    thresholds = None if task == "multiclass" else (0.5,)
    defaults: dict[str, Any] = {
        "labels": None,
        "thresholds": thresholds,
        "output": "logits",
        "batch": None,
        "preprocess": GREY_32,
    }
    return Contract(task=task, num_classes=num_classes, **(defaults | values))
