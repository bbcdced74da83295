"""What ``preprocessor_config.json`` and ``config.json`` beside a checkpoint say of its input and its labels.

Both are read as Hugging Face transformers and timm write them. They are as little trusted as the weights: what is of
the wrong kind, or means something that EdgePort's preprocessing does not do, is refused by file and key, unless the
command line says it instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgeport_export.source.processor import CONFIG, PROCESSOR, processor_fields, timm_fields
from edgeport_runtime.bundle.contract import TASKS
from edgeport_runtime.bundle.files import sha256_of
from edgeport_runtime.errors import InputError, WeightsError
from edgeport_runtime.pixels.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeport_export.config import ExportConfig
    from edgeport_models import ModelSpec
    from edgeport_models.weights import Checkpoint, Source
    from edgeport_runtime.bundle.contract import Task

__all__ = [
    "ARCHITECTURE",
    "CHECKPOINT",
    "COMMAND_LINE",
    "Defaults",
    "defaults_beside",
    "labels_beside",
    "options_beside",
    "per_channel",
    "task_beside",
    "weights_entry",
]

_PROBLEMS: dict[str, Task] = {
    "single_label_classification": "multiclass",
    "multi_label_classification": "multilabel",
}
_OURS = "edgeport"  # the entry of both files that EdgePort itself writes
ARCHITECTURE, CHECKPOINT, COMMAND_LINE = "architecture default", "checkpoint", "command line"
_FIELDS = ("color", "resize", "resize_size", "interpolation", "image_size", "scale", "mean", "std")


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """The input contract before the command line, and which file, or what else, each of its fields is from."""

    preprocess: PreprocessSpec
    sources: dict[str, str] = field(default_factory=lambda: dict.fromkeys(_FIELDS, ARCHITECTURE))

    def sources_with(self, config: ExportConfig) -> dict[str, str]:
        """The sources once the command line's options are put in."""
        sources = dict(self.sources)
        for name in _FIELDS:
            if getattr(config, name, None) is not None:
                sources[name] = COMMAND_LINE
        if config.channels is not None:
            sources["color"] = COMMAND_LINE
        if any(value is not None for value in (config.crop_pct, config.resize, config.image_size)):
            sources["resize_size"] = COMMAND_LINE
        return sources


def defaults_beside(default: PreprocessSpec, checkpoint: Checkpoint, config: ExportConfig) -> Defaults:
    """An architecture's input contract, changed to what a checkpoint and the files beside it tell.

    Args:
        default: of the architecture.
        checkpoint: with the content of those files.
        config: its options are not looked for in the files, so that a file that cannot be used can be overridden.

    Raises:
        WeightsError: naming the file and the key that cannot be used.
    """
    ours = checkpoint.source.processor.get(_OURS)
    if ours is not None:
        try:
            exact = PreprocessSpec.from_dict(ours if isinstance(ours, dict) else {})
        except InputError as error:
            raise WeightsError(f"{PROCESSOR} of {checkpoint.source.name}: {_OURS}: {error}") from None
        return Defaults(preprocess=exact, sources=dict.fromkeys(_FIELDS, PROCESSOR))
    given = {name for name in (*_FIELDS, "channels", "crop_pct") if getattr(config, name, None) is not None}
    told: dict[str, tuple[Any, str]] = {}
    if checkpoint.image_size is not None:
        told["image_size"] = (checkpoint.image_size, CHECKPOINT)
    for file, fields in (
        (CONFIG, timm_fields(checkpoint.source.config, given)),
        (PROCESSOR, processor_fields(checkpoint.source.processor, given)),
    ):
        told |= {name: (value, file) for name, value in fields.items()}
    values = {name: value for name, (value, _) in told.items()}
    sources = dict.fromkeys(_FIELDS, ARCHITECTURE) | {name: file for name, (_, file) in told.items()}
    if "resize_size" not in values and {"image_size", "resize"} & set(values):
        size = values.get("image_size", default.image_size)
        ratio = 1.0 if values.get("resize") == "none" else default.resize_size / default.image_size
        values["resize_size"] = math.floor(size * ratio)
        sources["resize_size"] = sources["resize" if "resize" in values else "image_size"]
    num_channels = 1 if values.get("color", default.color) == "grey" else 3
    for name in ("mean", "std"):
        values[name] = per_channel(values.get(name, getattr(default, name)), num_channels)
    try:
        return Defaults(preprocess=replace(default, **values), sources=sources)
    except InputError as error:
        files = " and ".join(sorted({file for _, file in told.values()}))
        raise WeightsError(f"{files} of {checkpoint.source.name}: {error}; say it with the input's options") from None


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value a channel: grey takes the average over the colours; three colours repeat the grey value."""
    if len(values) == channels:
        return tuple(values)
    return (round(sum(values) / len(values), 6),) * channels


def labels_beside(checkpoint: Checkpoint, num_classes: int) -> tuple[str, ...] | None:
    """Names of the classes in ``config.json``: ``id2label``, or timm's ``label_names``; None if it has none.

    ``LABEL_0``, ``LABEL_1`` and so on, which transformers writes where nobody named the classes, count as none.

    Raises:
        WeightsError: if they are not one text a class.
    """
    config = checkpoint.source.config
    key = "id2label" if "id2label" in config else "label_names"
    names = config.get(key)
    if names is None:
        return None
    where = f"{CONFIG} of {checkpoint.source.name}: {key}"
    if isinstance(names, list):
        names = {str(i): name for i, name in enumerate(names)}
    if not isinstance(names, dict):
        raise WeightsError(f"{where} is of type {type(names).__name__}, not an object; give --labels")
    if len(names) != num_classes:
        raise WeightsError(f"{where} has {len(names)} names, but the model has {num_classes} classes; give --labels")
    labels = []
    for i in range(num_classes):
        label = names.get(str(i))
        if not isinstance(label, str) or not label.strip():
            raise WeightsError(f"{where} has no name for class {i}; give --labels")
        labels.append(label.strip())
    return None if labels == [f"LABEL_{i}" for i in range(num_classes)] else tuple(labels)


def task_beside(checkpoint: Checkpoint) -> Task | None:
    """The task that ``config.json`` tells; None if it tells none.

    It stands in the entry ``edgeport``, which EdgePort's training writes, or in transformers' ``problem_type``.

    Raises:
        WeightsError: if it is none of EdgePort's tasks, or the entry is damaged.
    """
    entry, where = _training_entry(checkpoint)
    if not entry:
        problem = checkpoint.source.config.get("problem_type")
        if problem is not None and problem not in _PROBLEMS:
            raise WeightsError(
                f"{CONFIG} of {checkpoint.source.name}: problem_type is {problem!r}; "
                f"only {', '.join(_PROBLEMS)} are done. Say it with --task instead"
            )
        return None if problem is None else _PROBLEMS[problem]
    if entry.get("task") not in TASKS:
        raise WeightsError(f"{where}: task is {entry.get('task')!r}; it is one of {', '.join(TASKS)}")
    task: Task = entry["task"]
    return task


def options_beside(checkpoint: Checkpoint, spec: ModelSpec) -> dict[str, str | bool]:
    """The architecture's options in the entry ``edgeport`` of ``config.json``; empty without it.

    Raises:
        WeightsError: if the weights were trained for another architecture, whose keys may be the same, or the
            architecture has no such option or value.
    """
    entry, where = _training_entry(checkpoint)
    if entry and entry.get("architecture") != spec.name:
        raise WeightsError(f"{where}: these weights are of {entry.get('architecture')!r}, not of {spec.name}")
    options = entry.get("options", {})
    if not isinstance(options, dict):
        raise WeightsError(f"{where}: options is of type {type(options).__name__}, not an object")
    try:
        spec.check_options(options)
    except ValueError as error:
        raise WeightsError(f"{where}: {spec.name}: {error}") from None
    return options


def _training_entry(checkpoint: Checkpoint) -> tuple[dict[str, Any], str]:
    entry = checkpoint.source.config.get(_OURS, {})
    where = f"{CONFIG} of {checkpoint.source.name}: {_OURS}"
    if not isinstance(entry, dict):
        raise WeightsError(f"{where} is of type {type(entry).__name__}, not an object")
    return entry, where


def weights_entry(source: Source, *, layout: str | None, notes: Sequence[str]) -> dict[str, Any]:
    """The manifest's entry on where weights came from, whose layout they had, and what was done to them."""
    entry: dict[str, Any] = {"source": "hub" if source.origin else "file", **source.origin}
    entry |= {"file": source.file.name, "sha256": sha256_of(source.file)}
    if source.shards:
        entry["shards"] = {name: sha256_of(source.file.with_name(name)) for name in source.shards}
    if layout is not None:
        entry["layout"] = layout
    if notes:
        entry["note"] = "; ".join(notes)
    return entry
