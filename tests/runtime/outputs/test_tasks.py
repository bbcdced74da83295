"""Binary and multi-label models, and activations in the graph: what the runtime makes of a bundle's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from contracts import make_contract
from edgeport_runtime import Classifier, InputError
from edgeport_runtime.commands.verify import verify
from edgeport_runtime.outputs.tasks import decisions, probabilities
from task_models import TASKS, make_images, make_inputs, make_module

if TYPE_CHECKING:
    from typing import Any

    from edgeport_export import ExportResult
    from edgeport_runtime.bundle.contract import Task


@pytest.mark.parametrize("place", ["runtime", "in-graph"])
@pytest.mark.parametrize("task", TASKS)
def test_probabilities_are_pytorchs_wherever_the_activation_is(
    task: Task, place: str, task_bundles: dict[Any, ExportResult]
) -> None:
    x_BCHW = make_inputs()
    with torch.no_grad():
        logits_BK = make_module(task)(torch.from_numpy(x_BCHW)).double()
    expected = torch.softmax(logits_BK, dim=1) if task == "multiclass" else torch.sigmoid(logits_BK)
    assert 0.05 < expected.std() < 0.5
    with Classifier.load(task_bundles[task, place].path) as classifier:
        assert classifier.contract.output == ("logits" if place == "runtime" else "probabilities")
        # Measured: at most 6e-7
        np.testing.assert_allclose(classifier.probabilities(x_BCHW), expected.numpy(), rtol=0, atol=1e-5)
        if place == "in-graph":
            np.testing.assert_array_equal(classifier.probabilities(x_BCHW), classifier.outputs(x_BCHW))
            with pytest.raises(InputError, match=r"has its activation in the graph and returns no logits"):
                classifier.logits(x_BCHW)
        else:
            # Measured: at most 4e-6
            np.testing.assert_allclose(classifier.logits(x_BCHW), logits_BK.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_graph_names_its_output(task: Task, task_bundles: dict[Any, ExportResult]) -> None:
    for place, output in (("runtime", "logits"), ("in-graph", "probabilities")):
        path = task_bundles[task, place].path
        graph = onnx.load(path / "model.fp32.onnx").graph
        assert [value.name for value in graph.output] == [output]
        ends_with = {node.op_type for node in graph.node} & {"Softmax", "Sigmoid"}
        wanted = {"Softmax" if task == "multiclass" else "Sigmoid"} if place == "in-graph" else set()
        assert ends_with == wanted
        assert {"logits", "probabilities"} & set(np.load(path / "golden" / "expected.npz")) == {output}
        report = verify(path)
        assert report.passed
        assert report.num_equal == report.num_images == 8


def test_binary_predictions_name_the_decided_class_first(task_bundles: dict[Any, ExportResult]) -> None:
    with Classifier.load(task_bundles["binary", "runtime"].path) as classifier:
        found = classifier.predict_batch(make_images())
        assert {predictions[0].label for predictions in found} == {"no", "yes"}
        for predictions in found:
            first, second = predictions
            assert (first.is_decided, second.is_decided) == (True, False)
            assert first.score >= 0.5
            assert first.score + second.score == pytest.approx(1, abs=1e-12)
            assert {first.index, second.index} == {0, 1}
            assert [p.label for p in predictions] == [("no", "yes")[p.index] for p in predictions]
        assert [len(p) for p in classifier.predict_batch(make_images()[:2], top_k=1)] == [1, 1]


def test_multilabel_predictions_mark_what_reaches_its_threshold(task_bundles: dict[Any, ExportResult]) -> None:
    with Classifier.load(task_bundles["multilabel", "runtime"].path) as classifier:
        found = classifier.predict_batch(make_images())
    for predictions in found:
        assert [p.score for p in predictions] == sorted((p.score for p in predictions), reverse=True)
        assert [p.is_decided for p in predictions] == [p.score >= 0.5 for p in predictions]
    assert len({sum(p.is_decided for p in predictions) for predictions in found}) > 1


def test_multiclass_predictions_mark_the_first(task_bundles: dict[Any, ExportResult]) -> None:
    with Classifier.load(task_bundles["multiclass", "in-graph"].path) as classifier:
        predictions = classifier.predict(make_images()[0])
    assert [p.is_decided for p in predictions] == [True, False, False, False]


def test_thresholds_decide_one_or_one_a_label() -> None:
    outputs = np.array([[0.2, 0.8], [0.5, 0.4]])
    one = make_contract("multilabel", thresholds=(0.5,), output="probabilities")
    each = make_contract("multilabel", thresholds=(0.2, 0.9), output="probabilities")
    assert decisions(outputs, one).tolist() == [[0, 1], [1, 0]]
    assert decisions(outputs, each).tolist() == [[1, 0], [1, 0]]
    assert decisions(np.array([[0.0], [-0.1]]), make_contract("binary")).tolist() == [[1], [0]]
    assert decisions(outputs, make_contract("multiclass")).tolist() == [[1], [0]]
    least = make_contract("multiclass", thresholds=(0.8,), output="probabilities")
    assert decisions(outputs, least).tolist() == [[1, 1], [0, 0]]


def test_probabilities_of_huge_logits_are_finite() -> None:
    logits = np.array([[1e30, -1e30]])
    for task in ("multiclass", "multilabel"):
        assert probabilities(logits, make_contract(task)).tolist() == [[1, 0]]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("binary", {"num_classes": 3}, "num_classes: a binary task has 2 classes, not 3"),
        ("binary", {"thresholds": None}, "thresholds: a binary task has one value"),
        ("binary", {"thresholds": (0.5, 0.5)}, "thresholds: a binary task has one value"),
        (
            "multilabel",
            {"num_classes": 4, "thresholds": (0.5, 0.5)},
            r"a multilabel task has one value, or 4 \(one per class\)",
        ),
        ("multilabel", {"thresholds": (0.0,)}, r"\[0.0\] are not probabilities above 0 and below 1"),
        ("multiclass", {"thresholds": (0.5, 0.5)}, "thresholds: a multiclass task has one value, or none"),
        ("multiclass", {"labels": ("a",)}, "labels: there are 1 labels, but 2 classes"),
    ],
)
def test_contracts_that_contradict_themselves_are_refused(task: Task, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_contract(task, **values)
