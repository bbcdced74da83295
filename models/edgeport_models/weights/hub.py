"""Repositories of the Hugging Face hub, through huggingface_hub, with its cache, offline mode and endpoint."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeport_models.weights.shards import shard_names
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["HUB_SCHEME", "download"]

HUB_SCHEME = "hf://"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


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
    match = _NAME.fullmatch(address.removeprefix(HUB_SCHEME))
    if match is None:
        raise WeightsError(f"weights {address}: write a repository as hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    with _Repository.open(address, match["repo"], match["revision"]) as repository:
        for name in descriptions:
            repository.fetch(name)
        found = next((file for file in map(repository.fetch, weights) if file is not None), None)
        if found is None:
            where = "the hub cannot be reached, and its cache has" if repository.is_cache_only else "it has"
            raise WeightsError(
                f"weights {address}: {where} none of {', '.join(weights)}; "
                "check the repository's page, HF_ENDPOINT and HF_HUB_OFFLINE"
            )
        for name in shard_names(found) if found.suffix == ".json" else ():
            if repository.fetch(name) is None:
                raise WeightsError(f"weights {address}: it lacks the shard {name}, which {found.name} lists")
    return found, {"repository": match["repo"], "commit": found.parent.name}


class _Repository:
    """One repository at one commit: that of the first file, even if the branch moves on meanwhile."""

    def __init__(self, address: str, name: str, revision: str | None, hub: Any) -> None:
        self.is_cache_only = False
        self._address, self._name, self._revision, self._hub = address, name, revision, hub

    @classmethod
    @contextlib.contextmanager
    def open(cls, address: str, name: str, revision: str | None) -> Iterator[_Repository]:
        try:
            hub: Any = importlib.import_module("huggingface_hub")
            for part in ("errors", "utils"):
                importlib.import_module(f"huggingface_hub.{part}")
        except ModuleNotFoundError:
            raise WeightsError(f"weights {address} needs huggingface_hub: pip install huggingface_hub") from None
        # Its retries are told in our one error, and its progress is for terminals.
        verbosity = hub.utils.logging.get_verbosity()
        hide = not sys.stderr.isatty() and not hub.utils.are_progress_bars_disabled()
        hub.utils.logging.set_verbosity_error()
        if hide:
            hub.utils.disable_progress_bars()
        try:
            yield cls(address, name, revision, hub)
        finally:
            hub.utils.logging.set_verbosity(verbosity)
            if hide:
                hub.utils.enable_progress_bars()

    def fetch(self, name: str) -> Path | None:
        """Path in the cache; None if the repository lacks the file, or the cache does and the hub is out of reach."""
        errors = self._hub.errors
        try:
            path = Path(
                self._hub.hf_hub_download(
                    self._name, name, revision=self._revision, local_files_only=self.is_cache_only
                )
            )
        except errors.LocalEntryNotFoundError:
            self.is_cache_only = True  # each further try would wait for the same time
            return None
        except errors.RemoteEntryNotFoundError:
            return None
        except errors.GatedRepoError:
            reason = "its owner grants access on request: ask on its page, then log in with hf auth login"
        except errors.RepositoryNotFoundError:
            reason = "there is no such repository, or it is private: check the name, or log in with hf auth login"
        except errors.RevisionNotFoundError:
            reason = f"it has no revision {self._revision}"
        except (errors.HFValidationError, OSError) as error:  # OSError: other HTTP errors, and a full disk
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        else:
            self._revision = path.parent.name
            return path
        raise WeightsError(f"weights {self._address}: {reason}")
