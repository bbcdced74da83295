"""An image's scores do not depend on the images that it is run with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier
from edgeport_runtime.engine.session import Session
from edgeport_runtime.loading import load

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    """Eight images, of which one has values unlike those of the others; and nine more."""
    rng = np.random.default_rng(0)
    found = [rng.integers(0, 64, (24, 24, 3), dtype=np.uint8) for _ in range(17)]
    found[3] = rng.integers(0, 2, (24, 24, 3), dtype=np.uint8) * np.uint8(255)
    return found


_BUNDLES: dict[str, dict[str, Any]] = {
    "dynamic": {"architecture": "lenet5", "weights": "digits", "quantize": ("int8", "fp16", "int8-weights")},
    "static": {"architecture": "resnet20", "calibration": "builtin", "quantize": ("int8",)},
    "attention": {"architecture": "vit_digits", "weights": "digits", "quantize": ("int8",)},
    "batch of four": {"architecture": "lenet5", "weights": "digits", "batch": 4},
}


@pytest.fixture(scope="module", params=_BUNDLES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("neighbours") / "bundle"
    return export(ExportConfig(output=output, **_BUNDLES[request.param])).path


def test_scores_are_the_same_to_the_bit(bundle: Path, images: list[NDArray[np.uint8]]) -> None:
    with Classifier.load(bundle) as classifier:
        assert classifier.manifest is not None
        names = [variant.name for variant in classifier.manifest.variants]
    for name in names:
        for path, variant in ((bundle, name), (bundle / f"model.{name}.onnx", "auto")):
            with Classifier.load(path, variant=variant) as classifier:
                alone = [classifier.predict(image) for image in images]
                assert classifier.predict_batch(images[:8]) == alone[:8]
                assert classifier.predict_batch(images) == alone
                streamed = [result.predictions for result in classifier.stream(images, batch_size=8)]
                assert streamed == alone


def test_one_call_of_logits_is_one_input(tmp_path: Path) -> None:
    result = export(ExportConfig(architecture="lenet5", weights="digits", output=tmp_path / "bundle"))
    x = np.random.default_rng(0).standard_normal((8, 1, 32, 32)).astype(np.float32)
    x[0] *= 20
    with Classifier.load(result.path, variant="int8") as classifier:
        alone = np.concatenate([classifier.logits(x[i : i + 1]) for i in range(8)])
        assert not np.array_equal(classifier.logits(x), alone)  # ranges are those of the whole input, as documented


def test_a_ninth_image_opens_the_session_for_streams(
    lenet5: Any, images: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    class Counted(Session):
        def __init__(self, path: Path, **options: Any) -> None:
            opened.append(path)
            super().__init__(path, **options)

    monkeypatch.setattr(load, "Session", Counted)
    monkeypatch.setattr("edgeport_runtime.engine.machine.available_cpus", lambda: 2)
    with Classifier.load(lenet5.path, device="cpu") as classifier:
        assert len(classifier.predict_batch(images[:8])) == 8
        assert len(opened) == 1
        assert len(classifier.predict_batch(images[:9])) == 9
        assert len(opened) == 2
