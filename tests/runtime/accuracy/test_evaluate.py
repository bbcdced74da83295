"""Accuracy on one folder per class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)

from cifar10 import CLASSES as LABELS
from edgeport_runtime import Classifier, InputError
from edgeport_runtime.accuracy.evaluate import BinaryEvaluation, MulticlassEvaluation, MultilabelEvaluation, evaluate
from task_models import make_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeport_export import ExportResult


@pytest.fixture
def classifier(resnet20: ExportResult) -> Iterator[Classifier]:
    with Classifier.load(resnet20.path) as loaded:
        yield loaded


def _multiclass(classifier: Classifier, data: Path, **options: Any) -> MulticlassEvaluation:
    result = evaluate(classifier, data, **options)
    assert isinstance(result, MulticlassEvaluation)
    return result


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
    result = _multiclass(classifier, tmp_path, on_progress=lambda done, total: seen.append((done, total)))
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
    matrix = np.zeros((10, 10), int)
    for true, predicted, count in result.confusion:
        matrix[true, predicted] = count
    best = [found[0].index for found in predictions]
    np.testing.assert_array_equal(matrix, confusion_matrix(targets, best, labels=range(10)))
    assert 0 < result.calibration_error < 1
    assert result.matched_by == "name"
    assert [c.name for c in result.classes] == list(LABELS)
    assert sum(c.num_correct for c in result.classes) == num_correct
    assert {c.num_images for c in result.classes} == {3}
    assert seen == [(i + 1, 30) for i in range(30)]


def test_some_folders_are_enough_if_they_are_labels(classifier: Classifier, tmp_path: Path) -> None:
    _fill(tmp_path, ["truck", "cat"], num=1)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "readme.txt").write_text("not a class")
    result = _multiclass(classifier, tmp_path)
    assert result.matched_by == "name"
    assert [(c.name, c.index) for c in result.classes] == [("cat", 3), ("truck", 9)]


def test_other_names_go_by_sorted_order_if_that_is_said(classifier: Classifier, tmp_path: Path) -> None:
    _fill(tmp_path, [f"n{i:02}" for i in range(10)], num=1)
    with pytest.raises(InputError, match=r"'n00' is not among .* give --match order if they are the classes in sorted"):
        evaluate(classifier, tmp_path)
    result = _multiclass(classifier, tmp_path, match="order")
    assert result.matched_by == "sorted order"
    assert [(c.name, c.index) for c in result.classes] == [(f"n{i:02}", i) for i in range(10)]
    (tmp_path / "n10").mkdir()
    with pytest.raises(InputError, match="needs one folder per class, but there are 11 folders for 10 classes"):
        evaluate(classifier, tmp_path, match="order")


def test_model_without_labels_goes_by_number(lenet5: ExportResult, tmp_path: Path) -> None:
    _fill(tmp_path, [str(i) for i in range(10)], num=1)
    with Classifier.load(lenet5.path) as classifier:
        assert _multiclass(classifier, tmp_path).matched_by == "number"
    (tmp_path / "10").mkdir()
    with (
        Classifier.load(lenet5.path) as classifier,
        pytest.raises(InputError, match=r"'10' is none of the model's classes, which are numbered from 0 to 9; name"),
    ):
        evaluate(classifier, tmp_path)


def test_folders_that_cannot_be_matched_are_named(classifier: Classifier, tmp_path: Path) -> None:
    _fill(tmp_path, ["cat", "unicorn"], num=1)
    message = (
        "2 folders for 10 classes cannot be matched: 'unicorn' is not among the model's labels "
        f"({', '.join(LABELS)}); name the folders by the labels, or by the classes' numbers"
    )
    with pytest.raises(InputError) as caught:
        evaluate(classifier, tmp_path)
    assert str(caught.value) == f"{tmp_path}: {message}"


def test_data_that_is_no_folder_of_folders_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist; --data takes a folder"):
        evaluate(classifier, tmp_path / "nowhere")
    with pytest.raises(InputError, match="contains no folders"):
        evaluate(classifier, tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="cat contains no image"):
        evaluate(classifier, tmp_path)


def test_images_of_which_none_can_be_used_are_an_error(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for name in ("y.png", "z.png"):
        (tmp_path / "cat" / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"^none of the 2 images can be used; the first: .*y\.png is empty"):
        evaluate(classifier, tmp_path)


def _write_csv(folder: Path, targets: list[str]) -> Path:
    lines = ["path,labels"]
    for i, (image, labels) in enumerate(zip(make_images(), targets, strict=True)):
        Image.fromarray(image).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{labels}")
    path = folder / "labels.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("place", ["runtime", "in-graph"])
def test_binary_metrics_are_scikit_learns(place: str, task_bundles: dict[Any, ExportResult], tmp_path: Path) -> None:
    targets = np.random.default_rng(0).integers(0, 2, len(make_images()))
    data = _write_csv(tmp_path, [("no", "yes")[target] for target in targets])
    with Classifier.load(task_bundles["binary", place].path) as classifier:
        result = evaluate(classifier, data)
        predictions = classifier.predict_batch(make_images())
    assert isinstance(result, BinaryEvaluation)
    scores = np.array([next(p.score for p in found if p.label == "yes") for found in predictions])
    decided = np.array([found[0].index for found in predictions])
    expected = precision_recall_fscore_support(targets, decided, average="binary")
    assert 0 < expected[0] < 1
    assert (result.precision, result.recall, result.f1) == pytest.approx(expected[:3])
    assert result.accuracy == pytest.approx((targets == decided).mean())
    assert result.auroc == pytest.approx(roc_auc_score(targets, scores))
    assert result.cross_entropy == pytest.approx(log_loss(targets, scores), rel=1e-6)
    matrix = [[result.true_negatives, result.false_positives], [result.false_negatives, result.true_positives]]
    np.testing.assert_array_equal(matrix, confusion_matrix(targets, decided))
    assert (result.num_images, result.threshold, result.matched_by) == (len(targets), 0.5, "name")


@pytest.mark.parametrize("place", ["runtime", "in-graph"])
def test_multilabel_metrics_are_scikit_learns(
    place: str, task_bundles: dict[Any, ExportResult], tmp_path: Path
) -> None:
    targets = np.random.default_rng(1).integers(0, 2, (len(make_images()), 4))
    targets[:, 3] = 0  # a label that no image has
    data = _write_csv(tmp_path, [";".join(np.array(list("abcd"))[row == 1]) for row in targets])
    with Classifier.load(task_bundles["multilabel", place].path) as classifier:
        result = evaluate(classifier, data)
        scores = np.zeros(targets.shape)
        decided = np.zeros(targets.shape, int)
        for row, found in enumerate(classifier.predict_batch(make_images(), top_k=4)):
            for p in found:
                scores[row, p.index], decided[row, p.index] = p.score, p.is_decided
    assert isinstance(result, MultilabelEvaluation)
    macro = precision_recall_fscore_support(targets, decided, average="macro", zero_division=0)
    assert (result.macro_precision, result.macro_recall, result.macro_f1) == pytest.approx(macro[:3])
    known = slice(0, 3)
    assert result.mean_average_precision == pytest.approx(average_precision_score(targets[:, known], scores[:, known]))
    assert result.macro_auroc == pytest.approx(roc_auc_score(targets[:, known], scores[:, known]))
    assert result.num_labels_with_images == 3
    assert (result.labels[3].auroc, result.labels[3].average_precision) == (None, None)
    per_label = f1_score(targets, decided, average=None, zero_division=0)
    assert [label.f1 for label in result.labels] == pytest.approx(list(per_label))
    assert [label.name for label in result.labels] == list("abcd")
    assert result.exact_match == pytest.approx((decided == targets).all(axis=1).mean())
    expected_loss = np.mean([log_loss(targets[:, k], scores[:, k], labels=[0, 1]) for k in range(4)])
    assert result.cross_entropy == pytest.approx(expected_loss, rel=1e-5)


def test_multiclass_metrics_do_not_depend_on_where_the_activation_is(
    task_bundles: dict[Any, ExportResult], tmp_path: Path
) -> None:
    data = _write_csv(tmp_path, ["abcd"[i % 4] for i in range(len(make_images()))])
    results = []
    for place in ("runtime", "in-graph"):
        with Classifier.load(task_bundles["multiclass", place].path) as classifier:
            results.append(_multiclass(classifier, data))
    one, other = results
    assert one.confusion == other.confusion
    # Measured: 1e-8
    assert one.cross_entropy == pytest.approx(other.cross_entropy, rel=1e-5)
    assert one.calibration_error == pytest.approx(other.calibration_error, abs=1e-5)
