"""What ``preprocessor_config.json`` and ``config.json`` beside a checkpoint say about its input and labels.

Both are read as Hugging Face transformers and timm write them, and are trusted as little as the weights: a value of the
wrong type, or one that EdgePort's preprocessing does not support, is refused by file and key, unless the command line
sets it instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeport_export.source.processor import CONFIG, PROCESSOR, processor_fields, timm_fields
from edgeport_export.source.resolve import (
    ARCHITECTURE,
    CHECKPOINT,
    INPUT_FIELDS,
    preprocess_of,
    resolve,
    tell_architecture,
)
from edgeport_runtime.bundle.contract import TASKS
from edgeport_runtime.bundle.files import sha256_of
from edgeport_runtime.errors import InputError, WeightsError
from edgeport_runtime.pixels.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

    from edgeport_export.source.resolve import Told, Value
    from edgeport_models import ModelSpec
    from edgeport_models.weights import Checkpoint, Source
    from edgeport_runtime.bundle.contract import Task

__all__ = ["check_labels", "tell_files", "tell_own_files", "unused_files", "weights_entry"]

_PROBLEMS: dict[str, Task] = {
    "single_label_classification": "multiclass",
    "multi_label_classification": "multilabel",
}
_OURS = "edgeport"  # the entry of both files that EdgePort itself writes
_LABEL_FILES = ("class_to_idx.json", "id2label.json", "labels.txt", "labels.csv", "classes.txt")
# What readers of foreign layouts take from config.json, or look at to refuse a network that is not ours.
_READ_WITH_WEIGHTS = {
    "model_type",
    "hidden_act",
    "layer_norm_eps",
    "num_attention_heads",
    "global_pool",
    "architecture",
}


def tell_files(checkpoint: Checkpoint, spec: ModelSpec, given: Set[str]) -> dict[str, dict[str, Any]]:
    """What a checkpoint, and the files beside it, tell of the options of ``resolve.OPTIONS``.

    Args:
        checkpoint: with the content of those files.
        spec: of the network that it is for.
        given: options on the command line, which are not looked for in the files: a file that cannot be used can be
            overridden.

    Raises:
        WeightsError: naming the file and the key that cannot be used.
    """
    source = checkpoint.source
    told = _tell_meaning(source, given)
    told[CONFIG] |= _options(source, spec)
    # Whoever says how the input is normalized says all of it.
    if spec.published and not given & {"mean", "std"}:
        digest = sha256_of(source.file)
        told[CHECKPOINT] |= next((known for start, known in spec.published.items() if digest.startswith(start)), {})
    if checkpoint.image_size is not None:
        told[CHECKPOINT]["image_size"] = checkpoint.image_size
    return _tell_input(told, source, spec.preprocess, given)


def tell_own_files(source: Source, default: PreprocessSpec, given: Set[str]) -> dict[str, dict[str, Any]]:
    """What the files beside the weights of a user's own module tell of the options of ``resolve.OPTIONS``.

    Args:
        source: with the content of those files.
        default: the input of a module that nothing is known of.
        given: options on the command line, as of ``tell_files``.

    Raises:
        WeightsError: naming the file and the key that cannot be used.
    """
    return _tell_input(_tell_meaning(source, given), source, default, given)


def unused_files(source: Source, values: Mapping[str, Value], *, layout: str | None) -> list[str]:
    """For the manifest's note: the files beside the weights from which nothing was taken.

    Args:
        source: with the content of those files.
        values: of the options, with the places that told them.
        layout: of the weights; the reader of a foreign layout looks into ``config.json``.
    """
    used = {value.source for value in values.values()}
    if layout is not None and _READ_WITH_WEIGHTS & set(source.config):
        used.add(CONFIG)
    documents = {CONFIG: source.config, PROCESSOR: source.processor}
    unused = [name for name, document in documents.items() if document and name not in used]
    notes = [f"nothing was taken from {name} beside the weights" for name in unused]
    if "labels" not in values:
        beside = next((name for name in _LABEL_FILES if source.file.with_name(name).is_file()), None)
        notes += [] if beside is None else [f"{beside} beside the weights is not read; give it with --labels"]
    return notes


def _tell_meaning(source: Source, given: Set[str]) -> dict[str, dict[str, Any]]:
    """What ``config.json`` tells of the task and the labels."""
    told: dict[str, dict[str, Any]] = {CHECKPOINT: {}, CONFIG: {}, PROCESSOR: {}}
    task = None if "task" in given else _task(source)
    if task is not None:
        told[CONFIG]["task"] = task
    labels = None if "labels" in given else _labels(source)
    if labels is not None:
        told[CONFIG]["labels"] = labels
    return told


def _tell_input(
    told: dict[str, dict[str, Any]], source: Source, default: PreprocessSpec, given: Set[str]
) -> dict[str, dict[str, Any]]:
    """Add what both files tell of the input."""
    ours = source.processor.get(_OURS)
    if ours is not None:
        try:
            exact = PreprocessSpec.from_dict(ours if isinstance(ours, dict) else {})
        except InputError as error:
            raise WeightsError(f"{PROCESSOR} of {source.name}: {_OURS}: {error}") from None
        told[PROCESSOR] |= {name: value for name in INPUT_FIELDS if (value := getattr(exact, name)) is not None}
        return told
    told[CONFIG] |= timm_fields(source.config, given)
    told[PROCESSOR] |= processor_fields(source.processor, given)
    _check_input(source, default, told)
    return told


def _check_input(source: Source, default: PreprocessSpec, told: Told) -> None:
    """Refuse files whose values do not fit together, before the command line is put in."""
    files = sorted(place for place, options in told.items() if set(options) & set(INPUT_FIELDS))
    try:
        preprocess_of(resolve({ARCHITECTURE: tell_architecture(default), **told}))
    except InputError as error:
        where = f"{' and '.join(files)} of {source.name}"
        raise WeightsError(f"{where}: {error}; set the input's options on the command line instead") from None


def check_labels(labels: tuple[str, ...], num_classes: int, source: Source) -> None:
    """Raise WeightsError unless ``config.json`` has one label per class."""
    if len(labels) != num_classes:
        where = f"{CONFIG} of {source.name}: {_labels_key(source.config)}"
        raise WeightsError(f"{where} has {len(labels)} names, but the model has {num_classes} classes; give --labels")


def _labels_key(config: Mapping[str, Any]) -> str:
    return "id2label" if "id2label" in config else "label_names"


def _labels(source: Source) -> tuple[str, ...] | None:
    """Names of the classes in ``config.json``: ``id2label``, or timm's ``label_names``; None if it has none.

    ``LABEL_0``, ``LABEL_1`` and so on, which transformers writes where nobody named the classes, count as none.
    """
    config = source.config
    key = _labels_key(config)
    names = config.get(key)
    if names is None:
        return None
    where = f"{CONFIG} of {source.name}: {key}"
    if isinstance(names, list):
        names = {str(i): name for i, name in enumerate(names)}
    if not isinstance(names, dict):
        raise WeightsError(f"{where} is of type {type(names).__name__}, not an object; give --labels")
    labels = []
    for i in range(len(names)):
        label = names.get(str(i))
        if not isinstance(label, str) or not label.strip():
            raise WeightsError(f"{where} has no name for class {i}; give --labels")
        labels.append(label.strip())
    return None if labels == [f"LABEL_{i}" for i in range(len(labels))] else tuple(labels)


def _task(source: Source) -> Task | None:
    """The task that ``config.json`` tells; None if it tells none.

    It stands in the entry ``edgeport``, which EdgePort's training writes, or in transformers' ``problem_type``.

    Raises:
        WeightsError: if it is none of EdgePort's tasks, or the entry is damaged.
    """
    entry, where = _training_entry(source)
    if not entry:
        problem = source.config.get("problem_type")
        if problem is not None and problem not in _PROBLEMS:
            raise WeightsError(
                f"{CONFIG} of {source.name}: problem_type is {problem!r}; "
                f"only {', '.join(_PROBLEMS)} are supported; set --task instead"
            )
        return None if problem is None else _PROBLEMS[problem]
    if entry.get("task") not in TASKS:
        raise WeightsError(f"{where}: task is {entry.get('task')!r}; it must be one of {', '.join(TASKS)}")
    task: Task = entry["task"]
    return task


def _options(source: Source, spec: ModelSpec) -> dict[str, str | bool]:
    """The architecture's options in the entry ``edgeport`` of ``config.json``; empty without it.

    Raises:
        WeightsError: if the weights were trained for another architecture, whose keys may be the same, or the
            architecture has no such option or value.
    """
    entry, where = _training_entry(source)
    if entry and entry.get("architecture") != spec.name:
        raise WeightsError(f"{where}: these weights are for {entry.get('architecture')!r}, not of {spec.name}")
    options = entry.get("options", {})
    if not isinstance(options, dict):
        raise WeightsError(f"{where}: options is of type {type(options).__name__}, not an object")
    try:
        spec.check_options(options)
    except ValueError as error:
        raise WeightsError(f"{where}: {spec.name}: {error}") from None
    return options


def _training_entry(source: Source) -> tuple[dict[str, Any], str]:
    entry = source.config.get(_OURS, {})
    where = f"{CONFIG} of {source.name}: {_OURS}"
    if not isinstance(entry, dict):
        raise WeightsError(f"{where} is of type {type(entry).__name__}, not an object")
    return entry, where


def weights_entry(
    source: Source, *, layout: str | None, notes: Sequence[str], key: str | None = None
) -> dict[str, Any]:
    """The manifest's entry on where weights came from, whose layout they had, and what was done to them.

    ``key`` is the entry of the file that they come from, where it holds several.
    """
    entry: dict[str, Any] = {"source": "hub" if source.origin else "file", **source.origin}
    entry |= {"file": source.file.name, "sha256": sha256_of(source.file)}
    if source.shards:
        entry["shards"] = {name: sha256_of(source.file.with_name(name)) for name in source.shards}
    if key is not None:
        entry["key"] = key
    if layout is not None:
        entry["layout"] = layout
    if notes:
        entry["note"] = "; ".join(notes)
    return entry
