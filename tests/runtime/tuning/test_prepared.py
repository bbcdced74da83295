"""What `run-model tune` prepares loads faster, gives the same bits, and is not used where anything is wrong."""

from __future__ import annotations

import importlib.metadata
import json
import math
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeport_runtime import Classifier, ManifestError, load_manifest
from edgeport_runtime.commands.cli import main
from edgeport_runtime.engine.session import SessionSettings
from edgeport_runtime.tuning import prepared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeport_export import ExportResult


@pytest.fixture(autouse=True, scope="module")
def any_gain() -> Iterator[None]:
    """What is prepared is kept however long loading took: that is the machine's affair."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "_LEAST_GAIN_MS", -math.inf)
        yield


@pytest.fixture(scope="module")
def tuned(lenet5: ExportResult, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle, and the cache folder after tuning it."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPORT_CACHE", str(cache))
        assert main(["tune", str(lenet5.path)]) == 0
    return lenet5.path, cache


@pytest.fixture
def bundle(tuned: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of both that a test may spoil."""
    monkeypatch.setenv("EDGEPORT_CACHE", str(shutil.copytree(tuned[1], tmp_path / "cache")))
    return shutil.copytree(tuned[0], tmp_path / "bundle")


def _folder(tmp_path: Path) -> Path:
    (record,) = (tmp_path / "cache").rglob("prepared.json")
    return record.parent


def _flip_a_bit(model: Path) -> None:
    """In the midst of its weights."""
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)


def _is_prepared(bundle: Path) -> bool:
    with Classifier.load(bundle) as classifier:
        is_prepared: bool = classifier.explain()["prepared"]
        assert classifier.logits(np.zeros((1, 1, 32, 32), np.float32)).shape == (1, 10)
        return is_prepared


def test_it_is_used_and_gives_the_same_bits(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x_BCHW = np.random.default_rng(0).standard_normal((3, 1, 32, 32), np.float32)
    outputs = {}
    for name, options in {"plain": {}, "small": {"low_memory": True}}.items():
        with Classifier.load(bundle, **options) as classifier:
            assert classifier.explain()["prepared"]
            outputs[name] = classifier.logits(x_BCHW)
    monkeypatch.setenv("EDGEPORT_CACHE", str(bundle / "nothing"))
    with Classifier.load(bundle) as classifier:
        assert not classifier.explain()["prepared"]
        expected = classifier.logits(x_BCHW)
    np.testing.assert_array_equal(outputs["plain"], expected)
    np.testing.assert_array_equal(outputs["small"], expected)


@pytest.mark.parametrize("damage", ["cut", "garbage", "missing", "record"])
def test_a_damaged_one_is_survived(damage: str, bundle: Path, tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    data, model, record = (folder / name for name in ("model.data", "model.onnx", "prepared.json"))
    assert _is_prepared(bundle)
    if damage == "cut":
        data.write_bytes(data.read_bytes()[:-1])
    elif damage == "garbage":
        model.write_bytes(b"?" * model.stat().st_size)
    elif damage == "missing":
        data.unlink()
    else:
        record.write_text('{"variant": "fp32", "files": ["model.onnx"]}')
    assert not _is_prepared(bundle)


def test_an_altered_model_is_still_refused(bundle: Path) -> None:
    _flip_a_bit(bundle / "model.fp32.onnx")
    with pytest.raises(ManifestError, match="is not the file that was exported"):
        Classifier.load(bundle)


def test_a_model_altered_while_it_is_prepared_is_not_kept(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = prepared.save_optimized

    def meanwhile(path: Path, target: Path, *, settings: SessionSettings) -> None:
        real(path, target, settings=settings)
        _flip_a_bit(path)

    monkeypatch.setattr(prepared, "save_optimized", meanwhile)
    target = bundle.parent / "kept"
    variant = load_manifest(bundle).variants[0]
    with pytest.raises(ManifestError, match="is not the file that was exported"):
        prepared.prepare(bundle, variant, settings=SessionSettings(), target=target)
    assert not target.exists()


def test_streams_go_on_when_the_cache_vanishes(bundle: Path, tmp_path: Path) -> None:
    image = np.zeros((32, 32), np.uint8)
    with Classifier.load(bundle) as classifier:
        assert classifier.explain()["prepared"]
        shutil.rmtree(tmp_path / "cache")
        assert len(list(classifier.stream([image] * 3))) == 3


def test_what_saves_no_time_is_not_kept(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEPORT_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(prepared, "_LEAST_GAIN_MS", math.inf)
    assert main(["tune", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prepared"] is None
    assert [path.suffix for path in (tmp_path / "empty" / "tuned").iterdir()] == [".json"]
    assert not _is_prepared(bundle)


def test_that_of_other_versions_is_dropped(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _folder(tmp_path)
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9" if name == "onnxruntime" else real(name))
    assert not _is_prepared(bundle)
    assert main(["tune", str(bundle)]) == 0
    assert not before.exists()
    assert _folder(tmp_path) != before
    assert _is_prepared(bundle)


def test_the_cache_is_told(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bundle.exists()
    main(["doctor", "--json"])
    cache = json.loads(capsys.readouterr().out)["cache"]
    assert cache["folder"] == str(tmp_path / "cache" / "tuned")
    assert cache["size_bytes"] > (_folder(tmp_path) / "model.data").stat().st_size
