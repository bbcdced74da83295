"""What is found to be the fastest is used from then on, until anything changes that it depends on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier
from edgeport_runtime.commands.cli import main
from edgeport_runtime.engine import providers
from edgeport_runtime.engine.providers import PROVIDERS, Provider
from edgeport_runtime.loading import cache as caching
from edgeport_runtime.tuning import tune


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with int8 for two kinds of x86."""
    output = tmp_path_factory.mktemp("tune") / "bundle"
    return export(ExportConfig(architecture="lenet5", output=output, target=("cpu", "cpu-avx2"))).path


@pytest.fixture(scope="module")
def kept(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder after the bundle was tuned."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPORT_CACHE", str(folder))
        assert main(["tune", str(source), "--json"]) == 0
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tuned"


@pytest.fixture
def bundle(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "bundle")


def _tune(bundle: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["tune", str(bundle), "--json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def _rewrite(cache: Path, text: str) -> None:
    (file,) = cache.glob("*.json")
    file.write_text(text)


def _in_use(bundle: Path, **options: Any) -> tuple[str, str, int | None]:
    with Classifier.load(bundle, **options) as classifier:
        told = classifier.explain()
        return told["variant"], told["device"], told["threads"]


def _is_tuned(bundle: Path) -> bool:
    with Classifier.load(bundle) as classifier:
        return "run-model tune found this to be the fastest here" in classifier.explain()["reasons"]


@pytest.mark.slow
def test_two_models_are_in_memory_at_most(
    bundle: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_open: set[int] = set()
    most = 0
    load_exactly, close = Classifier.load_exactly, Classifier.close

    def opened(path: Path, **options: Any) -> Classifier:
        nonlocal most
        classifier = load_exactly(path, **options)
        is_open.add(id(classifier))
        most = max(most, len(is_open))
        return classifier

    def closed(classifier: Classifier) -> None:
        is_open.discard(id(classifier))
        close(classifier)

    monkeypatch.setattr(Classifier, "load_exactly", opened)
    monkeypatch.setattr(Classifier, "close", closed)
    found = _tune(bundle, capsys)
    assert len(found["contenders"]) > 2
    assert most == 2
    assert not is_open


def test_the_winner_is_used(bundle: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not _is_tuned(bundle)
    found = _tune(bundle, capsys)
    names = {(entry["variant"], entry["device"]) for entry in found["contenders"]}
    assert {("fp32", "cpu"), ("int8-avx2", "cpu")} <= names
    times = [entry["latency_ms"] for entry in found["contenders"]]
    assert times == sorted(times)
    assert {key: found["contenders"][0][key] for key in found["winner"]} == found["winner"]
    assert found["file"] == str(next(cache.glob("*.json")))
    assert _is_tuned(bundle)
    assert _in_use(bundle) == tuple(found["winner"].values())
    # Whatever wins on this machine, it is the file that decides, and the caller's wish before it.
    _rewrite(cache, json.dumps({"winner": {"variant": "int8-avx2", "device": "cpu", "threads": 1}}))
    assert _in_use(bundle) == ("int8-avx2", "cpu", 1)
    assert _in_use(bundle, device="cpu") == ("int8-avx2", "cpu", 1)
    assert _in_use(bundle, threads=2) == ("int8-avx2", "cpu", 2)
    assert _in_use(bundle, variant="fp32") == ("fp32", "cpu", None)


@pytest.mark.parametrize("changed", ["package", "bundle", "machine"])
def test_a_change_of_what_it_depends_on_ignores_it(
    changed: str, bundle: Path, cache: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(kept, cache.parent)
    assert _is_tuned(bundle)
    if changed == "package":
        real = importlib.metadata.version
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name: "9.9.9" if name == "onnxruntime" else real(name)
        )
    elif changed == "bundle":
        manifest = bundle / "manifest.json"
        manifest.write_text(manifest.read_text() + "\n")
    else:
        monkeypatch.setattr(caching, "describe_machine", lambda: {"cpu": "another", "num_cpus": 2, "system": "Linux"})
    assert not _is_tuned(bundle)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"winner": 3}',
        '{"winner": {"variant": "int8", "device": "cpu"}}',
        '{"winner": {"variant": "other", "device": "cpu", "threads": 1}}',
        '{"winner": {"variant": "fp32", "device": "toaster", "threads": 1}}',
        '{"winner": {"variant": "fp32", "device": "cpu", "threads": 100000}}',
        '{"winner": {"variant": "fp32", "device": "cpu", "threads": "many"}}',
        '{"winner": {"variant": ["fp32"], "device": {}, "threads": null}}',
        '{"winner": {"variant": "fp32", "device": "qnn", "threads": null}}',
    ],
)
def test_a_damaged_cache_is_survived(text: str, bundle: Path, cache: Path, kept: Path) -> None:
    shutil.copytree(kept, cache.parent)
    assert _is_tuned(bundle)
    _rewrite(cache, text)
    assert not _is_tuned(bundle)


def test_a_user_without_a_home_keeps_nothing(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EDGEPORT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    assert _tune(bundle, capsys)["file"] is None
    assert not _is_tuned(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_altered_bundle_is_refused(bundle: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = bundle / "model.fp32.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    assert main(["tune", str(bundle)]) == 1
    assert "model.fp32.onnx is not the file that was exported" in capsys.readouterr().err
    assert not cache.exists()


@pytest.mark.slow
def test_what_a_killed_process_left_is_removed(bundle: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = Path(_tune(bundle, capsys)["file"])
    left, at_work = (cache / f"{found.stem}.part{name}" for name in ("left", "atwork"))
    for folder in (left, at_work):
        folder.mkdir()
        (folder / "model.data").write_bytes(b"half")
    os.utime(left, (0, 0))
    _tune(bundle, capsys)
    assert not left.exists()
    assert at_work.exists()


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_survived(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("EDGEPORT_CACHE", str(in_the_way))
    assert _tune(bundle, capsys)["file"] is None
    assert main(["tune", str(bundle)]) == 0
    assert "not saved: the cache folder is not writable; set EDGEPORT_CACHE" in capsys.readouterr().err
    assert not _is_tuned(bundle)


def test_what_does_not_pass_the_golden_images_does_not_take_part(
    bundle: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = bundle / "manifest.json"
    data = json.loads(manifest.read_text())
    data["variants"][0]["tolerance"] = 1e-12
    manifest.write_text(json.dumps(data))
    monkeypatch.setattr(tune, "saturates", lambda quantization, _: (quantization or {}).get("target") == "cpu")
    found = _tune(bundle, capsys)
    assert {entry["variant"] for entry in found["contenders"]} == {"int8-avx2"}
    assert found["excluded"]["int8 on cpu"] == "its int8 arithmetic could saturate here"
    reasons = [reason for name, reason in found["excluded"].items() if name.startswith("fp32 on cpu")]
    assert reasons
    assert all("does not give what PyTorch computes" in reason for reason in reasons)


def test_a_device_that_has_gone_is_not_used(
    bundle: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    azure = Provider("azure", "AzureExecutionProvider", "nothing", ("float32",))
    monkeypatch.setattr(providers, "PROVIDERS", (*PROVIDERS, azure))
    _tune(bundle, capsys)
    _rewrite(cache, json.dumps({"winner": {"variant": "fp32", "device": "azure", "threads": None}}))
    monkeypatch.undo()
    monkeypatch.setenv("EDGEPORT_CACHE", str(cache.parent))
    assert not _is_tuned(bundle)
