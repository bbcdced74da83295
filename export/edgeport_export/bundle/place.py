"""Puts a bundle in place: whole or not at all, and without losing what was there."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgeport_runtime.bundle.manifest import MANIFEST_NAME, load_manifest
from edgeport_runtime.errors import ExportError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["place", "prepare_target", "staging"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def prepare_target(output: Path, *, force: bool) -> Path:
    """Check early that a bundle can be written there.

    Args:
        output: the folder asked for; links are resolved.
        force: accept a folder that holds a bundle.

    Returns:
        The resolved path.

    Raises:
        ExportError: if something is there that must not be replaced.
    """
    target = output.resolve()
    if not target.name:
        raise ExportError(f"{output} is the root of the file system; choose a folder in it")
    _heal(target)
    if not target.exists():
        return target
    if not target.is_dir():
        raise ExportError(f"{output} is a file; choose a folder that does not exist yet")
    if not any(target.iterdir()):
        return target
    if not (target / MANIFEST_NAME).is_file():
        raise ExportError(f"{output} holds no EdgePort bundle, so it is not replaced; choose another folder")
    if not force:
        raise ExportError(f"{output} already exists; replace it with --force, or choose another folder")
    try:
        load_manifest(target)
    except ManifestError as error:
        if error.context != "schema_version":
            raise ExportError(
                f"{output} holds a {MANIFEST_NAME} that is not EdgePort's, so it is not replaced; choose another folder"
            ) from None
    return target


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A temporary folder beside the target, on the same file system; gone afterwards, whatever happens.

    Parent folders are made; if the body fails, those that were made are removed again.

    Raises:
        ExportError: if nothing can be written there.
    """
    made = [parent for parent in target.parents if not parent.exists()]
    folder: Path | None = None
    is_done = False
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        except (FileExistsError, NotADirectoryError):
            raise ExportError(f"cannot write to {target.parent}: part of that path is a file") from None
        except OSError as error:
            raise ExportError(f"cannot write to {target.parent}: {error.strerror}") from None
        yield folder
        is_done = True
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if not is_done:
            for parent in made:
                with contextlib.suppress(OSError):  # not empty: somebody else uses it by now
                    parent.rmdir()


def place(bundle: Path, target: Path, *, force: bool) -> None:
    """Move a finished bundle to its place, in one step where the system allows.

    A new target, or an empty folder, is renamed to. With ``force``, a bundle that is there is exchanged with the new
    one and then deleted.

    Raises:
        ExportError: if something appeared at the target meanwhile.
    """
    bundle.chmod(0o777 & ~_umask())
    if not (force and (target / MANIFEST_NAME).is_file()):
        try:
            bundle.rename(target)  # fails if the target is a folder that is not empty
        except OSError as error:
            raise ExportError(
                f"{target} appeared while the export ran; nothing was replaced ({error.strerror})"
            ) from None
        return
    if _exchange(bundle, target):
        shutil.rmtree(bundle)
        return
    old = _old_name(target)
    target.rename(old)
    try:
        bundle.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)


def _heal(target: Path) -> None:
    """Finish what an interrupted replacement without exchange left behind."""
    old = _old_name(target)
    if old.is_dir():
        if target.exists():
            shutil.rmtree(old)
        else:
            old.rename(target)


def _old_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.edgeport-old")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step (Linux renameat2); False where that is not supported."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    status = renameat2(
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(one)),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(other)),
        ctypes.c_uint(_RENAME_EXCHANGE),
    )
    if status == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
