"""Checkpoints in repositories of the Hugging Face hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeport_models.weights.shards import shard_names
from edgeport_runtime.errors import InputError, WeightsError
from edgeport_runtime.hub import Repository, parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["download"]


def download(address: str, *, descriptions: Sequence[str], weights: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """Bring a repository's checkpoint and the descriptions beside it into the hub's cache; nothing else of it.

    Args:
        address: ``hf://OWNER/NAME[@REVISION]``.
        descriptions: files that may be absent.
        weights: files of which the first that is there is brought; of an index, its shards too.

    Returns:
        The checkpoint in the cache, and for the manifest the repository and the commit that it is of.

    Raises:
        WeightsError: if huggingface_hub is not installed, or the repository or its checkpoint cannot be had.
    """
    try:
        return _download(address, descriptions, weights)
    except InputError as error:
        raise WeightsError(f"weights {error}") from None


def _download(address: str, descriptions: Sequence[str], weights: Sequence[str]) -> tuple[Path, dict[str, str]]:
    with Repository.open(address) as repository:
        for name in descriptions:
            repository.fetch(name)
        found = next((file for file in map(repository.fetch, weights) if file is not None), None)
        if found is None:
            where = "the hub cannot be reached, and its cache has" if repository.is_cache_only else "it has"
            raise InputError(
                f"{address}: {where} none of {', '.join(weights)}; "
                "check the repository's page, HF_ENDPOINT and HF_HUB_OFFLINE"
            )
        for name in shard_names(found) if found.suffix == ".json" else ():
            if repository.fetch(name) is None:
                raise InputError(f"{address}: it lacks the shard {name}, which {found.name} lists")
        return found, {"repository": parse_address(address).repository, "commit": repository.commit}
