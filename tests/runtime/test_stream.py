"""Streams: the same predictions as one by one, in order, whatever fails, and never far ahead of the caller."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier, InputError, SessionError
from edgeport_runtime.commands.cli import main
from edgeport_runtime.stream import stream_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_export import ExportResult


@pytest.fixture(scope="module")
def classifier(lenet5: ExportResult) -> Iterator[Classifier]:
    with Classifier.load(lenet5.path) as loaded:
        yield loaded


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (4, 3), (64, None)])
def test_a_stream_gives_what_predict_gives_in_order(
    classifier: Classifier, arrays: list[NDArray[np.uint8]], batch_size: int, workers: int | None
) -> None:
    results = list(classifier.stream(iter(arrays), batch_size=batch_size, workers=workers, top_k=3))
    assert [id(result.item) for result in results] == [id(array) for array in arrays]
    for result in results:
        assert result.error is None
        assert result.predictions is not None
        expected = classifier.predict(result.item, top_k=3)
        assert [p.index for p in result.predictions] == [p.index for p in expected]
        # Measured: at most 1.2e-7, where batches are of another size.
        np.testing.assert_allclose([p.score for p in result.predictions], [p.score for p in expected], atol=1e-6)


def test_a_bad_image_is_an_error_of_its_own(
    classifier: Classifier, arrays: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    missing = tmp_path / "missing.png"
    items = [arrays[0], b"not an image", arrays[1], missing, *arrays[2:5], b""]
    results = list(classifier.stream(items, batch_size=2))
    assert [result.predictions is None for result in results] == [
        item in (b"not an image", missing, b"") for item in map(_plain, items)
    ]
    assert "missing.png" in str(results[3].error)
    every_bad = list(classifier.stream([b"", b"x", b"y"], batch_size=2))
    assert [type(result.error) for result in every_bad] == [InputError] * 3


def _plain(item: object) -> object:
    return None if isinstance(item, np.ndarray) else item


def test_images_are_taken_a_few_batches_ahead(classifier: Classifier, arrays: list[NDArray[np.uint8]]) -> None:
    taken = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        while True:
            taken += 1
            yield arrays[taken % len(arrays)]

    stream = classifier.stream(endless(), batch_size=3, workers=2)
    for given in range(1, 100):
        assert next(stream).predictions
        assert taken <= given + 3 * (2 + 1)
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgeport-stream")]


def test_what_the_source_raises_reaches_the_caller(classifier: Classifier, arrays: list[NDArray[np.uint8]]) -> None:
    def broken() -> Iterator[NDArray[np.uint8]]:
        yield from arrays[:2]
        raise ConnectionError("the camera is gone")

    with pytest.raises(ConnectionError, match="the camera is gone"):
        list(classifier.stream(broken(), batch_size=1))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgeport-stream")]


def test_what_the_network_raises_reaches_the_caller() -> None:
    def run(x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        raise SessionError(f"no memory for {len(x_BCHW)}")

    stream = stream_outputs(range(9), lambda _: np.zeros((1, 2, 2), np.float32), run, batch_size=4, workers=2)
    with pytest.raises(SessionError, match="no memory for 4"):
        next(stream)


def test_a_fixed_batch_is_filled_up(arrays: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    bundle = export(ExportConfig(architecture="lenet5", output=tmp_path / "fixed", batch=3, quantize=())).path
    with Classifier.load(bundle) as classifier:
        results = list(classifier.stream(arrays[:7], batch_size=5))
        assert [result.predictions for result in results] == [classifier.predict(array) for array in arrays[:7]]


def test_a_closed_classifier_and_wrong_arguments(lenet5: ExportResult) -> None:
    classifier = Classifier.load(lenet5.path)
    for name in ("batch_size", "workers", "top_k"):
        for value in (0, -1, 1.5, True, "2"):
            with pytest.raises(InputError, match=f"{name} is .*at least 1"):
                classifier.stream([], **{name: value})
    assert list(classifier.stream([])) == []
    classifier.close()
    with pytest.raises(SessionError, match="was closed"):
        next(classifier.stream([b""]))


def test_the_command_takes_folders(
    lenet5: ExportResult, arrays: list[NDArray[np.uint8]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    (tmp_path / "inner").mkdir()
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / "inner" / f"{i:02}.png")
    (tmp_path / "inner" / "05.png").write_bytes(b"damaged")
    assert main(["predict", str(lenet5.path), str(tmp_path), "--top-k", "1"]) == 1
    captured = capsys.readouterr()
    names = [line for line in captured.out.splitlines() if line.endswith(".png")]
    assert names == [str(tmp_path / "inner" / f"{i:02}.png") for i in range(21) if i != 5]
    assert captured.err.count("error: ") == 1
    assert "05.png" in captured.err
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(lenet5.path), str(tmp_path / "empty")]) == 1
    assert "contains no image" in capsys.readouterr().err
