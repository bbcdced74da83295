"""Bundles in repositories of the Hugging Face hub: the files that are needed, checked, as a folder of their own.

The hub's cache holds links into another folder, under names that are no models'. Here they are hard links, or copies
where the two folders are on different disks, one folder for each commit, which is never written again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgeport_runtime.bundle.files import sha256_of
from edgeport_runtime.bundle.manifest import MANIFEST_NAME, load_manifest
from edgeport_runtime.errors import InputError, ManifestError
from edgeport_runtime.hub import Repository, parse_address
from edgeport_runtime.loading.cache import cache_folder
from edgeport_runtime.loading.choice import MEASUREMENTS_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RemoteBundle", "bring_bundle"]


class RemoteBundle:
    """A bundle of the hub at one commit, with its manifest here and the rest on demand.

    Args:
        address: ``hf://OWNER/NAME[@REVISION]``.

    Attributes:
        folder: where its files are.
        manifest: what it says.

    Raises:
        InputError: if huggingface_hub is not installed, or the repository cannot be had or holds no bundle.
        ManifestError: if its manifest is not what the specification says.
    """

    def __init__(self, address: str) -> None:
        repository = parse_address(address).repository
        with Repository.open(address) as opened:
            found = opened.fetch(MANIFEST_NAME)
            if found is None:
                where = "the hub cannot be reached, and its cache has" if opened.is_cache_only else "it has"
                raise InputError(f"{address}: {where} no {MANIFEST_NAME}; check its page, HF_ENDPOINT, HF_HUB_OFFLINE")
            measurements = opened.fetch(MEASUREMENTS_NAME)
            commit = opened.commit
        self._address, self._commit = address, f"hf://{repository}@{commit}"
        self.folder = cache_folder().parent / "hub" / commit / repository.replace("/", "--")
        for name, file in ((MANIFEST_NAME, found), (MEASUREMENTS_NAME, measurements)):
            if file is not None and not (self.folder / name).exists():
                _put(file, self.folder / name)
        self.manifest = load_manifest(self.folder)

    def bring(self, names: Iterable[str]) -> None:
        """See that files which the manifest lists are in the folder, each with its digest.

        Raises:
            InputError: if one cannot be had.
            ManifestError: if one is not the file that was exported.
        """
        missing = [name for name in names if not (self.folder / name).exists()]
        if not missing:
            return
        with Repository.open(self._commit) as repository:
            for name in missing:
                file = repository.fetch(name)
                if file is None:
                    where = "the hub cannot be reached" if repository.is_cache_only else "the repository lacks it"
                    raise InputError(f"{self._address}: {name}, which its manifest lists, cannot be had: {where}")
                if sha256_of(file) != self.manifest.digests[name]:
                    raise ManifestError(
                        f"{self._address}: {name} is not the file that was exported (its SHA-256 differs); push the "
                        "bundle again, or name a revision that is whole"
                    )
                _put(file, self.folder / name)


def bring_bundle(address: str) -> Path:
    """The folder of a bundle of the hub with every file that its manifest lists; errors as ``RemoteBundle``."""
    bundle = RemoteBundle(address)
    bundle.bring(bundle.manifest.digests)
    return bundle.folder


def _put(file: Path, target: Path) -> None:
    """Under its name in one step: another process may be about the same.

    Raises:
        InputError: if the cache folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
        try:
            try:
                os.link(file.resolve(), part / target.name)
            except OSError:  # another disk, or a file system without hard links
                shutil.copyfile(file, part / target.name)
            (part / target.name).replace(target)
        finally:
            shutil.rmtree(part)
    except OSError as error:
        raise InputError(
            f"{target.parent} cannot be written ({error.strerror}); set EDGEPORT_CACHE to a folder with room"
        ) from None
