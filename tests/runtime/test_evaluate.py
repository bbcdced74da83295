"""Accuracy on a folder a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import log_loss, top_k_accuracy_score

from edgeport_runtime import Classifier, InputError
from edgeport_runtime.evaluate import evaluate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeport_export import ExportResult

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture
def classifier(resnet20: ExportResult) -> Iterator[Classifier]:
    with Classifier.load(resnet20.path) as loaded:
        yield loaded


def _fill(root: Path, names: list[str], num: int = 3) -> None:
    for number, name in enumerate(names):
        folder = root / name / "below"
        folder.mkdir(parents=True)
        for i in range(num):
            pixels = np.random.default_rng([number, i]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")


def test_metrics_are_scikit_learns(classifier: Classifier, tmp_path: Path) -> None:
    _fill(tmp_path, list(LABELS))
    seen: list[tuple[int, int]] = []
    result = evaluate(classifier, tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    paths = [path for label in LABELS for path in sorted((tmp_path / label).rglob("*.png"))]
    targets = [LABELS.index(path.parts[-3]) for path in paths]
    predictions = classifier.predict_batch(paths, top_k=10)
    scores = np.zeros((30, 10))
    for row, found in enumerate(predictions):
        for p in found:
            scores[row, p.index] = p.score
    num_correct = sum(found[0].index == target for found, target in zip(predictions, targets, strict=True))
    assert 0 < num_correct < 30
    assert (result.num_images, result.num_correct, result.top1) == (30, num_correct, num_correct / 30)
    assert result.top5 == pytest.approx(top_k_accuracy_score(targets, scores, k=5), abs=1e-12)
    assert result.cross_entropy == pytest.approx(log_loss(targets, scores, labels=range(10)), rel=1e-6)
    assert result.matched_by == "name"
    assert [c.name for c in result.classes] == list(LABELS)
    assert sum(c.num_correct for c in result.classes) == num_correct
    assert {c.num_images for c in result.classes} == {3}
    assert seen == [(i + 1, 30) for i in range(30)]


def test_some_folders_are_enough_if_they_are_labels(classifier: Classifier, tmp_path: Path) -> None:
    _fill(tmp_path, ["truck", "cat"], num=1)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "readme.txt").write_text("not a class")
    result = evaluate(classifier, tmp_path)
    assert result.matched_by == "name"
    assert [(c.name, c.index) for c in result.classes] == [("cat", 3), ("truck", 9)]


def test_other_names_go_by_sorted_order(classifier: Classifier, tmp_path: Path) -> None:
    _fill(tmp_path, [f"n{i:02}" for i in range(10)], num=1)
    result = evaluate(classifier, tmp_path)
    assert result.matched_by == "sorted order"
    assert [(c.name, c.index) for c in result.classes] == [(f"n{i:02}", i) for i in range(10)]


def test_model_without_labels_goes_by_sorted_order(lenet5: ExportResult, tmp_path: Path) -> None:
    _fill(tmp_path, [str(i) for i in range(10)], num=1)
    with Classifier.load(lenet5.path) as classifier:
        assert evaluate(classifier, tmp_path).matched_by == "sorted order"
    (tmp_path / "10").mkdir()
    with (
        Classifier.load(lenet5.path) as classifier,
        pytest.raises(InputError, match="11 folders for 10 classes, and the model has no labels to match by name"),
    ):
        evaluate(classifier, tmp_path)


def test_folders_that_cannot_be_matched_are_named(classifier: Classifier, tmp_path: Path) -> None:
    _fill(tmp_path, ["cat", "unicorn"], num=1)
    with pytest.raises(InputError, match="2 folders for 10 classes, and these are not among the labels: unicorn"):
        evaluate(classifier, tmp_path)


def test_data_that_is_no_folder_of_folders_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist; --data takes a folder"):
        evaluate(classifier, tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no folders"):
        evaluate(classifier, tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="cat holds no image"):
        evaluate(classifier, tmp_path)


def test_image_that_cannot_be_read_is_named(classifier: Classifier, tmp_path: Path) -> None:
    _fill(tmp_path, ["cat"], num=1)
    (tmp_path / "cat" / "z.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"z\.png is empty"):
        evaluate(classifier, tmp_path)
