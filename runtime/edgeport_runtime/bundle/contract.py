"""What a model takes and what its output means. Shapes: B batch, C channels, H W image, K outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from edgeport_runtime.bundle.schema import (
    expect_choice,
    expect_integer,
    expect_list,
    expect_object,
    expect_string,
    fail,
)
from edgeport_runtime.errors import InputError, ManifestError
from edgeport_runtime.pixels.preprocess import PreprocessSpec

__all__ = ["OUTPUTS", "TASKS", "Contract", "Output", "Task"]

Task = Literal["multiclass", "binary", "multilabel"]
Output = Literal["logits", "probabilities"]
TASKS: tuple[Task, ...] = get_args(Task)
OUTPUTS: tuple[Output, ...] = get_args(Output)

_MAX_CLASSES = 1_000_000
_MAX_BATCH = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """Also inside every ``.onnx`` file.

    Attributes:
        task: ``multiclass``: one of the classes, softmax; ``binary``: the second of two classes or the first, one
            output, sigmoid; ``multilabel``: any of the classes, a sigmoid each.
        num_classes: number of classes; 2 for ``binary``.
        labels: names of the classes, or None where they are not known.
        thresholds: decision thresholds, as probabilities: one value for ``binary``, one or one per class for
            ``multilabel``; None for ``multiclass``, or one value, below which nothing is decided.
        output: what the graph gives, and what its output is called: ``logits``, or ``probabilities`` where it holds the
            task's activation.
        batch: the fixed batch size, or None if any is taken.
        preprocess: from an image to the float32 input BCHW.
    """

    task: Task
    num_classes: int
    labels: tuple[str, ...] | None
    thresholds: tuple[float, ...] | None
    output: Output
    batch: int | None
    preprocess: PreprocessSpec

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != self.num_classes:
            raise InputError(f"labels: there are {len(self.labels)} labels, but {self.num_classes} classes")
        if self.task == "binary" and self.num_classes != 2:
            raise InputError(f"num_classes: a binary task has 2 classes, not {self.num_classes}")
        if self.task == "multiclass" and self.thresholds is None:
            return
        counts = (1, self.num_classes) if self.task == "multilabel" else (1,)
        if self.thresholds is None or len(self.thresholds) not in counts:
            wanted = {"multiclass": "one value, or none", "binary": "one value"}.get(
                self.task, f"one value, or {self.num_classes} (one per class)"
            )
            raise InputError(f"thresholds: a {self.task} task has {wanted}")
        if not all(0 < value < 1 for value in self.thresholds):
            raise InputError(f"thresholds: {list(self.thresholds)} are not probabilities above 0 and below 1")

    @property
    def num_outputs(self) -> int:
        """K: length of the graph's output for one image."""
        return 1 if self.task == "binary" else self.num_classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """C, H, W of the input of one image."""
        return self.preprocess.input_shape

    def label(self, index: int) -> str:
        """Name of a class, its number where names are not known."""
        return str(index) if self.labels is None else self.labels[index]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "task": self.task,
            "num_classes": self.num_classes,
            "labels": None if self.labels is None else list(self.labels),
            "thresholds": None if self.thresholds is None else list(self.thresholds),
            "output": self.output,
            "batch": self.batch,
            "preprocess": self.preprocess.to_dict(),
            "preprocess_sha256": self.preprocess.sha256(),
        }

    @classmethod
    def from_dict(cls, data: Any, context: str = "contract") -> Contract:
        """Read and validate.

        Raises:
            ManifestError: naming the value that is wrong.
        """
        fields = (*cls.__slots__, "preprocess_sha256")
        data = expect_object(data, context, fields)
        labels, thresholds, batch = data["labels"], data["thresholds"], data["batch"]
        if labels is not None:
            where = f"{context}.labels"
            labels = tuple(expect_string(v, f"{where}[{i}]") for i, v in enumerate(expect_list(labels, where)))
        if thresholds is not None:
            where = f"{context}.thresholds"
            thresholds = tuple(_probability(v, f"{where}[{i}]") for i, v in enumerate(expect_list(thresholds, where)))
        try:
            spec = PreprocessSpec.from_dict(expect_object(data["preprocess"], f"{context}.preprocess"))
        except InputError as error:
            raise ManifestError(str(error), context=f"{context}.preprocess") from None
        if data["preprocess_sha256"] != spec.sha256():
            fail(
                f"{context}.preprocess_sha256",
                "is not the digest of preprocess; do not edit the manifest, export again",
            )
        values = {
            "task": expect_choice(data["task"], f"{context}.task", TASKS),
            "num_classes": expect_integer(data["num_classes"], f"{context}.num_classes", 1, _MAX_CLASSES),
            "output": expect_choice(data["output"], f"{context}.output", OUTPUTS),
            "batch": None if batch is None else expect_integer(batch, f"{context}.batch", 1, _MAX_BATCH),
        }
        try:
            return cls(labels=labels, thresholds=thresholds, preprocess=spec, **values)
        except InputError as error:
            field, _, message = str(error).partition(": ")
            raise ManifestError(message, context=f"{context}.{field}") from None


def _probability(value: Any, context: str) -> float:
    if not isinstance(value, float) or not 0 < value < 1:
        fail(context, f"is {value!r}, not a probability above 0 and below 1")
    return value
