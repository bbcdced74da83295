"""The runtime's front door: predictions, logits, and what it refuses."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from cifar10 import CLASSES
from edgeport_export import ExportConfig, export
from edgeport_models import ARCHITECTURES
from edgeport_models.weights import fit_checkpoint, load_checkpoint
from edgeport_runtime import Classifier, InputError, Prediction, SessionError
from edgeport_runtime.pixels.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_export import ExportResult


@pytest.fixture
def classifier(lenet5: ExportResult) -> Iterator[Classifier]:
    with Classifier.load(lenet5.path) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def batch_of_four(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """LeNet-5 of the very same weights as the lenet5 bundle, for batches of four only."""
    output = tmp_path_factory.mktemp("bundles") / "four"
    return export(ExportConfig(architecture="lenet5", output=output, batch=4, quantize=()))


def _inputs(num: int) -> NDArray[np.float32]:
    return np.random.default_rng(num).standard_normal((num, 1, 32, 32), dtype=np.float32)


def test_predictions_are_pytorchs(resnet20: ExportResult, shared: Callable[[str], Path]) -> None:
    spec = ARCHITECTURES["resnet20"]
    module = spec.build()
    fit_checkpoint(module, load_checkpoint(shared("weights/resnet20-12fca82f.th")), spec=spec, source="")
    module.eval()
    labels = list(CLASSES)
    paths = sorted(shared("data/cifar10/test").rglob("*.png"))[::50]
    with Classifier.load(resnet20.path) as classifier:
        for path in paths:
            predictions = classifier.predict(path, top_k=10)
            x = torch.from_numpy(preprocess(path, classifier.contract.preprocess))[None]
            with torch.no_grad():
                scores = torch.softmax(module(x).double(), dim=1)[0]
            order = scores.argsort(descending=True).tolist()
            assert [p.index for p in predictions] == order
            assert [p.label for p in predictions] == [labels[i] for i in order]
            # Measured: at most 2e-6
            np.testing.assert_allclose([p.score for p in predictions], scores[order].numpy(), rtol=0, atol=2e-5)


def test_sources_of_one_image_agree(classifier: Classifier, tmp_path: Path, arrays: list[NDArray[np.uint8]]) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(arrays[0]).save(path)
    expected = classifier.predict(path)
    assert len(expected) == 5
    assert all(p.label is None for p in expected)
    for source in (str(path), path.read_bytes(), Image.open(path), arrays[0]):
        assert classifier.predict(source) == expected


def test_top_k_cuts_the_same_ranking(classifier: Classifier, arrays: list[NDArray[np.uint8]]) -> None:
    every = classifier.predict(arrays[0], top_k=99)
    assert sorted(p.index for p in every) == list(range(10))
    assert [p.score for p in every] == sorted((p.score for p in every), reverse=True)
    assert sum(p.score for p in every) == pytest.approx(1, abs=1e-12)
    assert classifier.predict(arrays[0], top_k=3) == every[:3]
    assert classifier.predict(arrays[0], 1) == every[:1]


@pytest.mark.parametrize("top_k", [0, -1, 2.5, True, None])
def test_top_k_that_is_no_count_is_refused(classifier: Classifier, top_k: Any, arrays: list[NDArray[np.uint8]]) -> None:
    with pytest.raises(InputError, match=r"top_k is .*; it must be a whole number of at least 1"):
        classifier.predict(arrays[0], top_k)


def test_batches_keep_the_order_of_the_images(classifier: Classifier, arrays: list[NDArray[np.uint8]]) -> None:
    several = classifier.predict_batch(iter(arrays), top_k=2)
    assert len(several) == len(arrays) == 21
    for predictions, array in zip(several, arrays, strict=True):
        alone = classifier.predict(array, top_k=2)
        assert [p.index for p in predictions] == [p.index for p in alone]
        # Measured: 0; a kernel may order additions differently in a batch.
        assert [p.score for p in predictions] == pytest.approx([p.score for p in alone], abs=1e-6)
    assert len({tuple(p) for p in several}) > 1
    assert classifier.predict_batch([]) == []


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 8, 11])
def test_fixed_batch_is_padded(num: int, classifier: Classifier, batch_of_four: ExportResult) -> None:
    x_BCHW = _inputs(num)
    with Classifier.load(batch_of_four.path) as four:
        assert four.contract.batch == 4
        logits = four.logits(x_BCHW)
    assert logits.shape == (num, 10)
    assert logits.dtype == np.float32
    # Measured: 4e-7
    np.testing.assert_allclose(logits, classifier.logits(x_BCHW), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 1, 32, 32)), "takes a float32 array BCHW, not float64; predict.. takes images"),
        (np.zeros((1, 1, 32, 32), np.uint8), "not uint8"),
        ([[[[0.0]]]], "not list"),
        (np.zeros((1, 32, 32), np.float32), r"the input has shape \(1, 32, 32\), not \(B, 1, 32, 32\) with B >= 1"),
        (np.zeros((1, 32, 32, 1), np.float32), r"shape \(1, 32, 32, 1\)"),
        (np.zeros((1, 3, 32, 32), np.float32), r"shape \(1, 3, 32, 32\)"),
        (np.zeros((0, 1, 32, 32), np.float32), r"with B >= 1"),
        (np.full((1, 1, 32, 32), np.nan, np.float32), "NaN or infinite"),
        (np.full((1, 1, 32, 32), np.inf, np.float32), "NaN or infinite"),
    ],
)
def test_input_that_is_not_the_contracts_is_refused(classifier: Classifier, x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        classifier.logits(x)


def test_one_nan_pixel_among_many_is_found(classifier: Classifier) -> None:
    x_BCHW = _inputs(8)
    x_BCHW[6, 0, 31, 17] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        classifier.logits(x_BCHW)


def test_input_need_not_be_contiguous_and_is_left_alone(classifier: Classifier) -> None:
    x_BCHW = _inputs(6)
    before = x_BCHW.copy()
    np.testing.assert_allclose(classifier.logits(x_BCHW[::2]), classifier.logits(x_BCHW)[::2], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(x_BCHW, before)


def test_closed_classifier_says_so(lenet5: ExportResult, arrays: list[NDArray[np.uint8]]) -> None:
    with Classifier.load(lenet5.path) as classifier:
        classifier.predict(arrays[0])
    for call in (lambda: classifier.predict(arrays[0]), lambda: classifier.logits(_inputs(1))):
        with pytest.raises(SessionError, match="was closed; load it again"):
            call()
    classifier.close()  # a second time is harmless


def test_threads_share_a_classifier(classifier: Classifier, arrays: list[NDArray[np.uint8]]) -> None:
    expected = [classifier.predict(array) for array in arrays]
    results: dict[int, list[list[Prediction]]] = {}

    def work(number: int) -> None:
        results[number] = [classifier.predict(array) for array in arrays]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[number] for number in range(4)] == [expected] * 4


def test_number_of_threads_does_not_change_the_answer(lenet5: ExportResult, arrays: list[NDArray[np.uint8]]) -> None:
    with Classifier.load(lenet5.path, threads=1) as one, Classifier.load(lenet5.path, threads=2) as two:
        assert [p.index for p in one.predict(arrays[0])] == [p.index for p in two.predict(arrays[0])]
