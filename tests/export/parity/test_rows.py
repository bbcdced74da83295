"""Images whose answers depend on their neighbours, randomness, and constants that a network has no answer to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgeport_export import ExportConfig, export, stages
from edgeport_runtime import Classifier, ExportError, ParityError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_export import ExportResult

PEOPLE = "cases/modules/people.py"


class Net(nn.Module):
    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)
        self.change = change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.change(self.conv(x).relu().mean((2, 3))))


def _export(module: nn.Module, tmp_path: Path, **options: Any) -> ExportResult:
    return export(module, ExportConfig(output=tmp_path / "bundle", image_size=8, quantize=(), **options))


def test_statistics_of_the_batch_are_refused_by_the_name_of_their_module(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    config = {"output": tmp_path / "bundle", "image_size": 8, "quantize": ()}
    with pytest.raises(ExportError) as caught:
        export(ExportConfig(architecture=f"{shared(PEOPLE)}:batch_statistics", **config))
    assert "the answer to an image depends on the other images of its batch, at 1 (BatchNorm2d)" in str(caught.value)
    assert "track_running_stats=True" in str(caught.value)
    assert not (tmp_path / "bundle").exists()
    mended = tmp_path / "mended.py"
    mended.write_text(shared(PEOPLE).read_text().replace(", track_running_stats=False", ""))
    result = export(ExportConfig(architecture=f"{mended}:batch_statistics", **config))
    assert result.parity.passed
    assert not [note for note in result.notes if "constant" in note]  # which a network usually has an answer to


def test_batch_of_one_exports_what_the_module_gives_for_an_image_alone(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    config = ExportConfig(
        architecture=f"{shared(PEOPLE)}:batch_statistics",
        output=tmp_path / "bundle",
        image_size=8,
        batch=1,
        quantize=(),
    )
    assert export(config).manifest.contract.batch == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda x: (x - x.mean(0)) / (x.std(0, correction=0) + 1e-5),
        lambda x: x - x[:1],
        lambda x: x + x.roll(1, 0),
        lambda x: x @ (x.T @ x).softmax(0),
    ],
)
def test_whatever_mixes_rows_is_named_with_its_line(change: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"depends on the other images .*, at the module \(Net\) .*lambda x:"):
        _export(Net(change), tmp_path)


def test_fixed_batch_whose_rows_mix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="depends on the other images of its batch"):
        _export(Net(lambda x: x - 0.5 * x.mean(0)), tmp_path, batch=4)


def test_randomness_in_evaluation_is_named_with_its_line(tmp_path: Path) -> None:
    torch.manual_seed(0)  # with some seeds the same features of an image are dropped both times
    with pytest.raises(
        ExportError, match=r"another answer at each call, .* random numbers at .*functional\.dropout\(x, 0\.2\)"
    ):
        _export(Net(lambda x: nn.functional.dropout(x, 0.2)), tmp_path)


def test_graph_whose_rows_mix_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = stages.trace
    mixing = Net(lambda x: x - 0.5 * x.mean(0))
    monkeypatch.setattr(stages, "trace", lambda _module, *args, **options: trace(mixing, *args, **options))
    with pytest.raises(ParityError, match="stage exported: in the graph the answer to an image depends on the other"):
        _export(Net(lambda x: x), tmp_path)


def test_traced_graph_is_blamed_for_what_only_its_batch_of_eight_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = stages.trace
    odd = Net(lambda x: x + x.shape[0] // 8)
    monkeypatch.setattr(stages, "trace", lambda _module, *args, **options: trace(odd, *args, **options))
    with pytest.raises(ParityError, match="stage exported: in the graph the answer to an image depends on the other"):
        _export(Net(lambda x: x), tmp_path)


class ZScore(nn.Module):
    """Has no answer to a constant image."""

    def __init__(self, net: nn.Module, epsilon: float = 0.0) -> None:
        super().__init__()
        self.net, self.epsilon = net, epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net((x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + self.epsilon))


@pytest.mark.parametrize(("batch", "epsilon"), [(None, 0.0), (4, 0.0), (None, 1e-7)])
def test_constants_without_an_answer_are_left_out_and_said(batch: int | None, epsilon: float, tmp_path: Path) -> None:
    values = {"mean": (0.5,) * 3, "std": (0.3,) * 3}  # which no float holds, so that a mean of them is rounded
    result = _export(ZScore(Net(lambda x: x), epsilon), tmp_path, batch=batch, **values)
    assert [note for note in result.notes if "constant" in note] == [
        "2 constant images are not compared: PyTorch's own answer is NaN, rounding noise, or the same for all classes"
    ]
    assert result.parity.passed
    counts = [stage.num_samples for stage in result.parity.stages if "runtime" not in stage.stage]
    assert counts == ([6, 14, 14] if batch is None else [8, 16, 16])


def test_network_that_gives_nothing_on_black_is_compared_on_all_else(tmp_path: Path) -> None:
    net = Net(lambda x: x)
    net.conv.bias, net.head.bias = None, None
    result = _export(net, tmp_path)
    assert "1 constant image is not compared" in " ".join(result.notes)


def test_golden_image_without_an_answer_is_named(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    for name, level in (("a", None), ("b", 0)):
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels if level is None else np.full_like(pixels, level)).save(tmp_path / f"golden/{name}.png")
    with pytest.raises(ParityError, match="NaN or infinite on golden image 2; look for a division by zero, such as by"):
        _export(ZScore(Net(lambda x: x)), tmp_path, golden=tmp_path / "golden")


def test_module_that_changes_its_input_is_compared_with_the_input_as_it_was(tmp_path: Path) -> None:
    class InPlace(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.sub_(0.5).mul_(3))

    result = _export(InPlace(lambda x: x), tmp_path)
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), Classifier.load(result.path) as classifier:
        expected = InPlace(lambda x: x)(x.clone())
        torch.testing.assert_close(torch.tensor(classifier.outputs(x.numpy())), expected, rtol=1e-5, atol=1e-6)
