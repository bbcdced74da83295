"""What ``verify`` holds ``predict`` and ``stream`` to."""

from __future__ import annotations

import hashlib
import json
import runpy
import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier, ManifestError, ParityError, load_manifest
from edgeport_runtime.accuracy import answers
from edgeport_runtime.commands.cli import main
from edgeport_runtime.commands.verify import verify
from edgeport_runtime.outputs import metrics, tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from edgeport_export import ExportResult
    from edgeport_runtime.outputs.predictions import Prediction


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle for each task; the digits have labels and trained weights."""
    folder = tmp_path_factory.mktemp("answers")
    options: dict[str, dict[str, Any]] = {
        "multiclass": {"weights": "digits"},
        "threshold": {"weights": "digits", "threshold": (0.9,)},
        "binary": {"task": "binary"},
        "multilabel": {"task": "multilabel", "num_classes": 4, "threshold": (0.5, 0.25, 0.5, 0.75)},
    }
    return {
        task: export(ExportConfig(architecture="lenet5", output=folder / task, quantize=(), **values)).path
        for task, values in options.items()
    }


def test_answers_are_kept_and_replayed(bundles: dict[str, Path]) -> None:
    for bundle in bundles.values():
        report = verify(bundle)
        assert report.passed
        assert report.problem is None
        assert report.score_difference is not None
        assert report.score_difference < 1e-5


def _shifted(predictions_of: Callable[..., list[Prediction]]) -> Callable[..., list[Prediction]]:
    def shifted(outputs_K: Any, contract: Any, k: int) -> list[Prediction]:
        labels = contract.labels[1:] + contract.labels[:1]
        return [replace(p, label=labels[p.index]) for p in predictions_of(outputs_K, contract, k)]

    return shifted


def _problem(bundle: Path) -> str:
    """What ``verify`` says is wrong, which is also why the bundle does not load with ``verify=True``."""
    report = verify(bundle)
    assert not report.passed
    assert report.problem is not None
    with pytest.raises(ParityError, match=r"does not give what PyTorch computes") as raised:
        Classifier.load(bundle, verify=True)
    assert report.problem in str(raised.value)
    return report.problem


def test_shifted_labels(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "predictions_of", _shifted(answers.predictions_of))
    assert "is called" in _problem(bundles["multiclass"])


def test_sigmoid_for_softmax(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "softmax", metrics.sigmoid)
    assert "has probability" in _problem(bundles["multiclass"])


def test_softmax_over_the_wrong_axis(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "softmax", lambda x_BK: np.exp(x_BK) / np.exp(x_BK).sum(axis=0))
    assert "has probability 1.0000" in _problem(bundles["multiclass"])


def test_ascending_top_k(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgeport_runtime.outputs.predictions.top_k",
        lambda scores, k: np.argsort(scores, axis=-1, kind="stable")[..., :k],
    )
    assert "are not the 5 most probable ones" in _problem(bundles["multiclass"])
    monkeypatch.undo()
    assert verify(bundles["multiclass"]).passed


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_above_for_at_least_the_threshold(task: str, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def above(outputs_BK: Any, contract: Any) -> Any:
        return (tasks.probabilities(outputs_BK, contract) > np.array(contract.thresholds)).astype(np.int64)

    monkeypatch.setattr("edgeport_runtime.outputs.predictions.decisions", above)
    assert "made-up outputs" in _problem(bundles[task])


def test_a_threshold_that_is_not_looked_at(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgeport_runtime.outputs.predictions.decisions",
        lambda outputs_BK, _: outputs_BK.argmax(axis=1)[:, np.newaxis],
    )
    assert "made-up outputs" in _problem(bundles["threshold"])


def test_below_its_threshold_a_multiclass_model_decides_nothing(
    bundles: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundles["threshold"]
    images = [str(bundle / image.file) for image in load_manifest(bundle).golden.images]
    with Classifier.load(bundle) as classifier:
        found = classifier.predict_batch(images)
    assert {predictions[0].is_decided for predictions in found} == {True, False}
    for predictions in found:
        assert [p.is_decided for p in predictions] == [predictions[0].score >= 0.9, *([False] * 4)]
        assert predictions[0].label is not None
    script = runpy.run_path(str(bundle / "infer.py"))
    session = script["load"]()
    assert [script["predict"](session, image) for image in images] == [[asdict(p) for p in one] for one in found]
    assert main(["predict", str(bundle), *images]) == 0
    told = capsys.readouterr().out
    num_undecided = sum(not predictions[0].is_decided for predictions in found)
    assert told.count("nothing is decided: below the threshold of 90.00%") == num_undecided
    assert told.count("  * ") == len(images) - num_undecided
    (tmp_path / "8").mkdir()
    for image in images:
        shutil.copy(image, tmp_path / "8")
    assert main(["evaluate", str(bundle), "--data", str(tmp_path)]) == 0
    decided = [predictions[0].label for predictions in found if predictions[0].is_decided]
    line = f"decided            {len(decided)} of {len(images)}, at 0.9 or above; right: {decided.count('8')} of them"
    assert line in capsys.readouterr().out.splitlines()


def test_a_stream_reversed_within_a_batch(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    original = Classifier.stream

    def reversed_stream(self: Classifier, items: Iterable[Any], **options: Any) -> Iterator[Any]:
        return iter(list(original(self, items, **options))[::-1])

    monkeypatch.setattr(Classifier, "stream", reversed_stream)
    assert "stream: class" in _problem(bundles["multiclass"])


def _edited(bundle: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    copy = shutil.copytree(bundle, folder / "edited")
    manifest = copy / "manifest.json"
    data = json.loads(manifest.read_text(encoding="utf-8"))
    change(data)
    manifest.write_text(json.dumps(data), encoding="utf-8")
    return copy


def _rotate(data: dict[str, Any]) -> None:
    data["contract"]["labels"] = data["contract"]["labels"][1:] + data["contract"]["labels"][:1]


def test_labels_rotated_in_the_manifest_do_not_load(bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = _edited(bundles["multiclass"], tmp_path, _rotate)
    with pytest.raises(ManifestError, match=r"the contract in model.fp32.onnx is not the manifest's.*export again"):
        Classifier.load(bundle)


def test_a_bundle_of_schema_version_1_is_read_and_verified(bundles: dict[str, Path], tmp_path: Path) -> None:
    def to_version_1(data: dict[str, Any]) -> None:
        data["schema_version"] = 1
        for variant in data["variants"]:
            del variant["score_tolerance"]

    bundle = _edited(bundles["multiclass"], tmp_path, to_version_1)
    with np.load(bundle / "golden" / "expected.npz") as arrays:
        logits_BK = arrays["logits"]
    np.savez(bundle / "golden" / "expected.npz", logits=logits_BK)
    digest = hashlib.sha256((bundle / "golden" / "expected.npz").read_bytes()).hexdigest()
    data = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    data["golden"]["sha256"] = digest
    (bundle / "manifest.json").write_text(json.dumps(data), encoding="utf-8")
    report = verify(bundle)
    assert report.passed
    assert report.score_difference is None


def test_the_tolerance_of_a_variant_is_below_what_zeros_give(resnet20: ExportResult) -> None:
    from edgeport_export.bundle.write import score_tolerance_of, tolerance_of

    assert tolerance_of(0.8) == pytest.approx(0.9)
    assert tolerance_of(0.01) == pytest.approx(0.02)
    assert tolerance_of(1e-7) == 1e-4
    assert score_tolerance_of(0.9) == pytest.approx(0.95)
    assert all(variant.tolerance < 1 for variant in resnet20.manifest.variants)
