"""Where a checkpoint is: a file, a folder in the Hugging Face layout, or a repository of the hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeport_models.weights.hub import download
from edgeport_models.weights.shards import INDEX_SUFFIX, read_json, shard_names
from edgeport_runtime.errors import WeightsError
from edgeport_runtime.hub import is_address

__all__ = ["CONFIG_FILE", "PROCESSOR_FILE", "Source", "find_weights"]

CONFIG_FILE, PROCESSOR_FILE = "config.json", "preprocessor_config.json"
_SHIPPED = Path(__file__).with_name("shipped")  # a folder a name, in there one an architecture
_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")  # the best first


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A checkpoint and what lies beside it.

    Attributes:
        name: as the user gave it.
        file: the checkpoint, or the index of its shards.
        config: content of ``config.json`` beside it, empty if there is none.
        processor: content of ``preprocessor_config.json`` beside it, empty if there is none.
        origin: for the manifest: of a hub's repository its name and commit, else empty.
    """

    name: str
    file: Path
    config: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

    @property
    def shards(self) -> list[str]:
        """Names of the files beside ``file`` that hold the tensors, if it is an index; else empty."""
        return shard_names(self.file) if self.file.name.endswith(INDEX_SUFFIX) else []


def find_weights(weights: str | Path, *, architecture: str | None = None) -> Source:
    """Find a checkpoint and read the descriptions beside it; a repository is downloaded, or taken from the cache.

    Args:
        weights: a file, a folder, ``hf://OWNER/NAME[@REVISION]``, or the name of weights that EdgePort ships (a file of
            that name is reached as ``./NAME``).
        architecture: what the weights are for.

    Raises:
        WeightsError: if there is no checkpoint, a description is damaged, or the repository cannot be had.
    """
    name = str(weights)
    origin: dict[str, str] = {}
    if isinstance(weights, str) and (_SHIPPED / weights).is_dir() and weights.isidentifier():
        file, origin = _shipped(weights, architecture), {"source": "shipped", "name": weights}
    elif is_address(name):
        file, origin = download(name, descriptions=(CONFIG_FILE, PROCESSOR_FILE), weights=_WEIGHT_FILES)
    else:
        file = Path(weights)
        if file.is_dir():
            file = _weights_in(file)
        elif not file.exists():
            shipped = ", ".join(sorted(folder.name for folder in _SHIPPED.iterdir()))
            raise WeightsError(f"weights {name} does not exist; give a file, a folder, hf://OWNER/NAME, or {shipped}")
    config, processor = (
        read_json(path) if path.is_file() else {}
        for path in (file.with_name(CONFIG_FILE), file.with_name(PROCESSOR_FILE))
    )
    return Source(name=name, file=file, config=config, processor=processor, origin=origin)


def _shipped(name: str, architecture: str | None) -> Path:
    known = sorted(folder.name for folder in (_SHIPPED / name).iterdir())
    if architecture not in known:
        raise WeightsError(
            f"the weights {name!r} that EdgePort ships are for {', '.join(known)}, not for {architecture}; "
            f"a file of that name is ./{name}"
        )
    return _weights_in(_SHIPPED / name / architecture)


def _weights_in(folder: Path) -> Path:
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"weights {folder} is a folder that holds none of {', '.join(_WEIGHT_FILES)}; give the file")
