"""Files of a bundle: where they are, and their digests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeport_runtime.errors import ManifestError

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_runtime.bundle.manifest import Variant

__all__ = ["bundle_file", "check_digests", "checked_file", "sha256_of"]


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundle_file(bundle: Path, name: str) -> Path:
    """The path of one of the bundle's files, after links are resolved.

    Raises:
        ManifestError: if it does not exist, or lies outside the bundle.
    """
    try:
        path = (bundle / name).resolve()
    except (OSError, RuntimeError):  # a loop of links, before Python 3.13
        path = bundle.resolve()
    if not path.is_relative_to(bundle.resolve()):
        raise ManifestError(f"{name} is a link that leads out of the bundle")
    if not path.is_file():
        raise ManifestError(f"{bundle} lacks the file {name}, which its manifest lists; copy the whole folder again")
    return path


def checked_file(bundle: Path, name: str, sha256: str) -> Path:
    """The path of one of the bundle's files, whose content is the one that was exported.

    Raises:
        ManifestError: as ``bundle_file``, and if the file's digest is another.
    """
    path = bundle_file(bundle, name)
    if sha256_of(path) != sha256:
        raise ManifestError(f"{name} is not the file that was exported (its SHA-256 differs); copy the bundle again")
    return path


def check_digests(bundle: Path, variant: Variant) -> None:
    """Raise ManifestError if a variant's files are not those that were exported."""
    expected = {variant.file: variant.sha256}
    if variant.data is not None:
        expected[variant.data.file] = variant.data.sha256
    for name, sha256 in expected.items():
        checked_file(bundle, name, sha256)
