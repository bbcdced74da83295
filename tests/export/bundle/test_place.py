"""Putting a folder in place: whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeport_export.bundle import place as bundle_module
from edgeport_export.bundle.place import place, prepare_target, staging
from edgeport_runtime import ExportError

if TYPE_CHECKING:
    from edgeport_export import ExportResult


@pytest.fixture
def old(lenet5: ExportResult, tmp_path: Path) -> Path:
    """A folder that counts as a bundle: a real manifest, and a file to recognise it by."""
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "manifest.json").write_bytes((lenet5.path / "manifest.json").read_bytes())
    (target / "old").touch()
    return target


def _put(target: Path, *, force: bool) -> None:
    resolved = prepare_target(target, force=force)
    with staging(resolved) as folder:
        new = folder / "bundle"
        new.mkdir()
        (new / "manifest.json").write_text("{}")
        (new / "new").touch()
        place(new, resolved, force=force)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_folder_and_its_parents_are_made(tmp_path: Path) -> None:
    _put(tmp_path / "a" / "b" / "bundle", force=False)
    assert _names(tmp_path / "a" / "b") == ["bundle"]
    assert _names(tmp_path / "a" / "b" / "bundle") == ["manifest.json", "new"]


def test_empty_folder_and_link_to_one_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    _put(tmp_path / "link", force=False)
    assert _names(tmp_path) == ["link", "real"]
    assert _names(tmp_path / "real") == ["manifest.json", "new"]


def test_existing_bundle_is_replaced_by_force_only(old: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="already exists; replace it with --force"):
        _put(old, force=False)
    assert (old / "old").exists()
    _put(old, force=True)
    assert _names(old) == ["manifest.json", "new"]
    assert _names(tmp_path) == ["bundle"]


def test_without_exchange_the_old_bundle_is_moved_aside(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "_exchange", lambda *_: False)
    _put(old, force=True)
    assert _names(old) == ["manifest.json", "new"]
    assert _names(tmp_path) == ["bundle"]


def test_interrupted_move_is_healed_by_the_next_run(old: Path, tmp_path: Path) -> None:
    old.rename(tmp_path / ".bundle.edgeport-old")
    assert prepare_target(old, force=True) == old
    assert _names(tmp_path) == ["bundle"]
    assert (old / "old").exists()


@pytest.mark.parametrize("force", [False, True])
def test_folders_that_are_no_bundle_are_never_replaced(tmp_path: Path, *, force: bool) -> None:
    target = tmp_path / "photos"
    target.mkdir()
    (target / "photo.jpg").touch()
    with pytest.raises(ExportError, match="holds no EdgePort bundle, so it is not replaced"):
        prepare_target(target, force=force)
    (target / "manifest.json").write_text(json.dumps({"name": "a web page"}))
    with pytest.raises(ExportError, match="is not replaced" if force else "exists; replace it with --force"):
        prepare_target(target, force=force)
    assert _names(target) == ["manifest.json", "photo.jpg"]


def test_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="is a file; choose a folder that does not exist yet"):
        prepare_target(tmp_path / "file", force=True)
    with pytest.raises(ExportError, match=r"cannot write to .*: part of that path is a file"):
        _put(tmp_path / "file" / "sub" / "bundle", force=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_root_is_refused() -> None:
    with pytest.raises(ExportError, match="/ is the root of the file system; choose a folder in it"):
        prepare_target(Path("/"), force=True)


def test_what_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = prepare_target(tmp_path / "bundle", force=False)
    new = tmp_path / "new"
    new.mkdir()
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(ExportError, match="appeared while the export ran"):
        place(new, target, force=False)
    assert _names(target) == ["mine"]


def test_failure_removes_everything_that_was_made(tmp_path: Path) -> None:
    def fail() -> None:
        with staging(tmp_path / "a" / "b" / "bundle") as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert _names(tmp_path) == []
