"""Repositories of the Hugging Face hub by ``hf://OWNER/NAME[@REVISION]``, through huggingface_hub.

Its cache, its offline mode, its endpoint and its login are used as they are set up.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CARD_NAME", "HUB_SCHEME", "Address", "Repository", "import_hub", "is_address", "parse_address", "reason_of"]

HUB_SCHEME = "hf://"
CARD_NAME = "README.md"
"""The file that the hub shows of a repository."""
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Address(NamedTuple):
    """A repository, ``OWNER/NAME``, and the revision that was asked for; None is the main branch."""

    repository: str
    revision: str | None


def is_address(text: object) -> bool:
    """Whether this is an address of the hub, and not a path."""
    return isinstance(text, str) and text.startswith(HUB_SCHEME)


def parse_address(address: str) -> Address:
    """The parts of ``hf://OWNER/NAME[@REVISION]``.

    Raises:
        InputError: if it is not written so.
    """
    match = _NAME.fullmatch(address.removeprefix(HUB_SCHEME))
    if match is None:
        raise InputError(f"{address}: write a repository as hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    return Address(match["repo"], match["revision"])


@contextlib.contextmanager
def import_hub(address: str) -> Iterator[Any]:
    """The module huggingface_hub, quiet: its retries are told in our one error, and its progress is for terminals.

    Raises:
        InputError: if it is not installed.
    """
    try:
        hub: Any = importlib.import_module("huggingface_hub")
        for part in ("errors", "utils"):
            importlib.import_module(f"huggingface_hub.{part}")
    except ModuleNotFoundError:
        raise InputError(f"{address} needs huggingface_hub: pip install huggingface_hub") from None
    verbosity = hub.utils.logging.get_verbosity()
    hide = not sys.stderr.isatty() and not hub.utils.are_progress_bars_disabled()
    hub.utils.logging.set_verbosity_error()
    if hide:
        hub.utils.disable_progress_bars()
    try:
        yield hub
    finally:
        hub.utils.logging.set_verbosity(verbosity)
        if hide:
            hub.utils.enable_progress_bars()


class Repository:
    """One repository at one commit: that of the first file, even if the branch moves on meanwhile.

    Attributes:
        is_cache_only: the hub is out of reach, or not to be asked.
    """

    def __init__(self, address: str, hub: Any) -> None:
        self.is_cache_only = False
        self._address, self._hub = address, hub
        self._name, self._revision = parse_address(address)

    @classmethod
    @contextlib.contextmanager
    def open(cls, address: str) -> Iterator[Repository]:
        """For the time of a ``with``.

        Raises:
            InputError: if it is no address, or huggingface_hub is not installed.
        """
        parse_address(address)
        with import_hub(address) as hub:
            yield cls(address, hub)

    def fetch(self, name: str) -> Path | None:
        """Path in the cache; None if the repository lacks the file, or the cache does and the hub is out of reach.

        Raises:
            InputError: naming the address and the reason, if it cannot be had otherwise.
        """
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
        except (errors.HFValidationError, OSError) as error:  # OSError: other HTTP errors, and a full disk
            raise InputError(f"{self._address}: {reason_of(error, errors, self._revision)}") from None
        commit = path.parents[name.count("/")].name
        if not _COMMIT.fullmatch(commit):
            raise InputError(f"{self._address}: the hub tells no commit but {commit!r}; check HF_ENDPOINT")
        self._revision = commit
        return path

    @property
    def commit(self) -> str:
        """The commit of the files that were fetched."""
        assert self._revision is not None
        return self._revision


def reason_of(error: Exception, errors: Any, revision: str | None) -> str:
    """What to tell of an error of huggingface_hub, in a line, with its remedy where it has one.

    Args:
        error: what was raised.
        errors: the module ``huggingface_hub.errors``.
        revision: what was asked for.
    """
    if isinstance(error, errors.GatedRepoError):
        return "its owner grants access on request: ask on its page, then log in with hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repository, or it is private: check the name, or log in with hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision}"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
