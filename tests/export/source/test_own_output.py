"""What modules of the user's own give: activations, one output, several tensors, lost axes; and the scores after it."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from edgeport_export import ExportConfig, export
from edgeport_export.cli import main
from edgeport_export.report import print_result
from edgeport_export.source.subject import find_subject
from edgeport_runtime import Classifier, ExportError, InputError
from edgeport_runtime.pixels.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_export import ExportResult
    from edgeport_runtime.pixels.preprocess import PreprocessSpec

PEOPLE = "cases/modules/people.py"


class Head(nn.Module):
    """A network whose head the test chooses: a function of its logits (B, K) and of its features (B, 8)."""

    def __init__(
        self, finish: Callable[[torch.Tensor, torch.Tensor], Any], num_outputs: int = 5, *, sure: float = 30
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Linear(8, num_outputs)
        self.head.weight.data *= sure
        self.finish = finish

    def forward(self, x: torch.Tensor) -> Any:
        features = self.body(x)
        return self.finish(self.head(features), features)


class Pair(NamedTuple):
    scores: Any
    hidden: Any


@dataclasses.dataclass
class Answer:
    loss: Any
    logits: Any
    hidden: Any


def _export(module: nn.Module, tmp_path: Path, **options: Any) -> ExportResult:
    config = ExportConfig(
        **{"output": tmp_path / "bundle", "image_size": 8, "quantize": (), "architecture": "net", **options}
    )
    return export(module, config)


def _input_options(spec: PreprocessSpec) -> dict[str, Any]:
    """The options that describe an input."""
    names = ("color", "scale", "mean", "std", "resize", "interpolation", "image_size")
    return {name: getattr(spec, name) for name in names}


def _scores(bundle: Path, pixels_HWC: Any) -> np.ndarray[Any, Any]:
    """Scores of predict by class."""
    with Classifier.load(bundle) as classifier:
        found = classifier.predict(pixels_HWC, top_k=classifier.contract.num_classes)
    return np.array([one.score for one in sorted(found, key=lambda one: one.index)])


def _pixels() -> Any:
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def _said(module: nn.Module) -> Any:
    """What the module itself says of the image."""
    x = torch.tensor(_pixels()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        return module.eval()(x)[0].numpy()


@pytest.mark.parametrize(
    ("finish", "how"),
    [
        (lambda x, _: x.softmax(-1), "it ends in softmax"),
        (lambda x, _: x.softmax(1).clamp(1e-9, 1.0).reshape(-1, 5), "it ends in softmax"),
        (lambda x, _: x.exp() / x.exp().sum(1, keepdim=True), "its rows are not negative and sum to 1"),
    ],
)
def test_scores_of_a_module_that_ends_in_softmax_are_its_own(
    finish: Callable[..., Any], how: str, tmp_path: Path
) -> None:
    module = Head(finish, sure=300)
    result = _export(module, tmp_path)
    assert result.manifest.contract.output == "probabilities"
    assert result.manifest.contract.task == "multiclass"
    assert f"the module gives probabilities already ({how}); no softmax is applied to them" in result.notes
    scores = _scores(result.path, _pixels())
    assert scores.max() > 0.99
    np.testing.assert_allclose(scores, _said(module), atol=1e-6)


def test_softmax_is_found_and_printed_for_a_module_by_file(
    shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    reference = f"{shared(PEOPLE)}:ends_in_softmax"
    assert main([reference, "-o", str(bundle), "--image-size", "8", "--activation", "in-graph"]) == 0
    assert "note: the module gives probabilities already (it ends in softmax)" in capsys.readouterr().out
    with Classifier.load(bundle) as classifier:
        assert classifier.contract.output == "probabilities"
    assert _scores(bundle, _pixels()).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_trained_network_that_ends_in_softmax_keeps_its_scores_on_real_images(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    config = ExportConfig(
        architecture="resnet20", output=tmp_path / "logits", weights=shared("weights/resnet20-12fca82f.th"), quantize=()
    )
    logits = find_subject(config)
    golden = shared("data/cifar10/test")
    options = {**_input_options(logits.contract.preprocess), "golden": golden, "quantize": ()}
    result = export(
        nn.Sequential(logits.module, nn.Softmax(-1)), ExportConfig(output=tmp_path / "probabilities", **options)
    )
    images = sorted(golden.rglob("*.png"))[:64]
    with Classifier.load(result.path) as classifier:
        scores = np.array([classifier.predict(image, top_k=1)[0].score for image in images])
    x = torch.tensor(np.stack([preprocess(image, logits.contract.preprocess) for image in images]))
    with torch.no_grad():
        expected = logits.module(x).softmax(1).amax(1).numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert scores.mean() > 0.9  # a second softmax leaves 0.23 at most


def test_log_softmax_stays_logits_whose_softmax_is_the_same(tmp_path: Path) -> None:
    module = Head(lambda x, _: x.log_softmax(1))
    result = _export(module, tmp_path)
    assert result.manifest.contract.output == "logits"
    assert "the module ends in log-softmax; softmax turns that into its probabilities" in result.notes
    np.testing.assert_allclose(_scores(result.path, _pixels()), np.exp(_said(module)), atol=1e-5)


def test_sigmoid_of_one_output_is_a_binary_task(tmp_path: Path) -> None:
    module = Head(lambda x, _: torch.sigmoid(x), 1)
    result = _export(module, tmp_path)
    contract = result.manifest.contract
    assert (contract.task, contract.output, contract.num_classes) == ("binary", "probabilities", 2)
    assert contract.thresholds == (0.5,)
    assert (
        "the module gives probabilities already (it ends in a sigmoid); no sigmoid is applied to them" in result.notes
    )
    np.testing.assert_allclose(_scores(result.path, _pixels())[1], _said(module)[0], atol=1e-6)


def test_sigmoid_of_several_outputs_is_a_multilabel_task(tmp_path: Path) -> None:
    module = Head(lambda x, _: torch.sigmoid(x))
    result = _export(module, tmp_path, task="multilabel")
    assert result.manifest.contract.output == "probabilities"
    np.testing.assert_allclose(_scores(result.path, _pixels()), _said(module), atol=1e-6)


@pytest.mark.parametrize(
    "finish",
    [
        lambda x, _: torch.cat([head.sigmoid() for head in x.split(1, 1)], 1),
        lambda x, _: torch.stack([head.sigmoid() for head in x.unbind(1)], 1).nan_to_num(),
        lambda x, _: x.sigmoid()[:, [4, 3, 2, 1, 0]],
    ],
)
def test_sigmoids_of_several_heads_are_found(finish: Callable[..., Any], tmp_path: Path) -> None:
    module = Head(finish)
    with pytest.raises(InputError, match="a sigmoid of each of its 5 outputs; add --task multilabel"):
        _export(module, tmp_path)
    result = _export(module, tmp_path, task="multilabel")
    assert result.manifest.contract.output == "probabilities"
    np.testing.assert_allclose(_scores(result.path, _pixels()), _said(module), atol=1e-6)


def test_outputs_that_only_look_like_probabilities_are_said(tmp_path: Path) -> None:
    result = _export(Head(lambda x, _: 1 / (1 + torch.exp(-x)), 1), tmp_path, task="binary")
    assert result.manifest.contract.output == "logits"
    assert any("every output of the module lies between 0 and 1" in note for note in result.notes)


def test_percentages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"sum to 100 for every image, as percentages do; divide them by 100, or"):
        _export(Head(lambda x, _: 100 * x.softmax(1)), tmp_path)


@pytest.mark.parametrize(
    ("finish", "num_outputs", "task", "message"),
    [
        (lambda x, _: x, 1, None, r"net gives one output per image, .* needs two or more; add --task binary"),
        (lambda x, _: x, 1, "multiclass", "add --task binary"),
        (lambda x, _: x.sigmoid(), 5, None, "a sigmoid of each of its 5 outputs; add --task multilabel if several"),
        (lambda x, _: x.sigmoid(), 5, "multiclass", "otherwise take the sigmoid out of the module"),
        (lambda x, _: x.softmax(1), 5, "multilabel", "ends in softmax, .*; omit --task multilabel"),
        (
            lambda x, _: x.softmax(1),
            2,
            "binary",
            "gives 2 probabilities, but a binary task has one; use --task ",
        ),
        (lambda x, _: x.softmax(1), 1, None, "softmax over a single output, .*; take it out of the module"),
    ],
)
def test_task_that_the_outputs_cannot_have_is_refused(
    finish: Callable[..., Any], num_outputs: int, task: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        _export(Head(finish, num_outputs), tmp_path, task=task)
    assert not (tmp_path / "bundle").exists()


def test_one_output_becomes_binary_as_the_error_says(
    shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [f"{shared(PEOPLE)}:one_output", "-o", str(tmp_path / "bundle"), "--image-size", "8"]
    assert main(command) == 1
    assert capsys.readouterr().err.endswith("; add --task binary\n")
    assert main([*command, "--task", "binary"]) == 0


@pytest.mark.parametrize(
    ("finish", "chosen", "left"),
    [
        (lambda x, h: {"logits": x, "features": h}, "dict that the module gives, logits (2, 5)", "features"),
        (lambda x, h: OrderedDict(loss=h.sum(), out=x), "OrderedDict that the module gives, out (2, 5)", "loss"),
        (lambda x, h: (h[:, :, None], x), "tuple that the module gives, 1 (2, 5)", "0"),
        (lambda x, h: Answer(None, x, h), "Answer that the module gives, logits (2, 5)", "hidden"),
        (lambda x, h: {"head": {"logits": x}, "hidden": h}, "dict that the module gives, head.logits (2, 5)", "hidden"),
    ],
)
def test_the_one_tensor_that_can_be_the_logits_is_taken(
    finish: Callable[..., Any], chosen: str, left: str, tmp_path: Path
) -> None:
    config = ExportConfig(architecture="net", output=tmp_path / "bundle", image_size=8)
    subject = find_subject(config, Head(finish))
    assert f"of the {chosen} is exported; left out: {left}" in subject.notes
    np.testing.assert_array_equal(_said(subject.module), _said(Head(lambda x, _: x)))


def test_output_of_a_dataclass_is_exported_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = _export(Head(lambda x, h: Answer(None, x, h)), tmp_path)
    print_result(result, result.path)
    assert "note: of the Answer that the module gives, logits (2, 5) is exported" in capsys.readouterr().out
    np.testing.assert_allclose(_scores(result.path, _pixels()), _said(Head(lambda x, _: x.softmax(1))), atol=1e-5)


@pytest.mark.parametrize(
    ("finish", "names", "wanted"),
    [
        (lambda x, h: (x, h), "0 (2, 5), 1 (2, 8)", "0"),
        (lambda x, h: Pair(x, h), "scores (2, 5), hidden (2, 8)", "scores"),
    ],
)
def test_among_several_outputs_one_is_chosen_by_name(
    finish: Callable[..., Any], names: str, wanted: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        _export(Head(finish), tmp_path)
    assert names in str(caught.value)
    assert str(caught.value).endswith("choose with --output-name NAME")
    with pytest.raises(InputError, match=r"--output-name is 7, but the module gives .*; choose one of these"):
        _export(Head(finish), tmp_path, output_name="7")
    result = _export(Head(finish), tmp_path, output_name=wanted)
    np.testing.assert_allclose(_scores(result.path, _pixels()), _said(Head(lambda x, _: x.softmax(1))), atol=1e-5)


@pytest.mark.parametrize("architecture", ["lenet5", "net"])
def test_output_name_without_a_choice_is_refused(architecture: str, tmp_path: Path) -> None:
    config = ExportConfig(architecture=architecture, output=tmp_path / "x", image_size=32, output_name="logits")
    module = None if architecture == "lenet5" else Head(lambda x, _: x)
    with pytest.raises(InputError, match=r"--output-name chooses .*omit it"):
        export(config) if module is None else export(module, config)


@pytest.mark.parametrize(
    ("finish", "message"),
    [
        (lambda x, _: x[:, :, None, None], r"\(2, 5, 1, 1\) for a batch of 2, not \(2, K\); return x\.flatten\(1\)"),
        (lambda x, _: x[:, 0], r"shape \(2,\) for a batch of 2, .*return x\.reshape\(-1, 1\), and add --task binary"),
        (lambda x, _: x.numpy(), r"gives ndarray, not a tensor; return the logits \(batch, K\) as a torch\.Tensor"),
        (lambda x, _: x.argmax(1), r"gives torch\.int64, not torch\.float32; .*, before any argmax"),
        (lambda x, _: x.argmax(1, keepdim=True), r"gives torch\.int64, not torch\.float32; return the scores"),
        (lambda x, _: x.double(), r"gives torch\.float64, not torch\.float32; return it as x\.float\(\)"),
        (lambda x, _: {"a": x[:, :, None]}, r"dict of a \(2, 5, 1\), none of shape \(batch, K\)"),
        (lambda x, _: x.softmax(0), r"ends in softmax, but what it gives for an image does not sum to 1"),
        (lambda x, _: nn.functional.logsigmoid(x), "ends in log-sigmoid"),
        (lambda x, _: x.cuda(), r"EdgePort runs it on the CPU; take \.cuda\(\)"),
        (lambda x, _: x @ torch.ones(5, 5).half(), r"EdgePort runs it in float32; take \.half\(\)"),
    ],
)
def test_output_that_is_no_row_of_scores_is_refused_with_the_remedy(
    finish: Callable[..., Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        _export(Head(finish), tmp_path)


def test_bare_squeeze_is_named_with_its_line_and_remedy(shared: Callable[[str], Path], tmp_path: Path) -> None:
    config = ExportConfig(architecture=f"{shared(PEOPLE)}:bare_squeeze", output=tmp_path / "bundle", image_size=8)
    with pytest.raises(ExportError) as caught:
        export(config)
    assert "gives shape (5,) for a batch of 1, not (1, 5); squeeze() takes the axis of a batch of one" in str(
        caught.value
    )
    assert "people.py, line 32: return self.head(self.pool(self.conv(x)).squeeze())" in str(caught.value)
    assert str(caught.value).endswith("name the axes: flatten(1)")
    text = shared(PEOPLE).read_text().replace(".squeeze())", ".flatten(1))")
    (tmp_path / "mended.py").write_text(text)
    result = export(dataclasses.replace(config, architecture=f"{tmp_path / 'mended.py'}:bare_squeeze", quantize=()))
    assert result.parity.passed


def test_autocast_inside_forward_is_refused_with_its_line_and_the_remedy_works(tmp_path: Path) -> None:
    class Net(Head):
        def forward(self, x: torch.Tensor) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x).float()

    with pytest.raises(ExportError) as caught:
        _export(Net(lambda x, _: x), tmp_path)
    assert "computes in torch.bfloat16 (at " in str(caught.value)
    assert "test_own_output.py, line" in str(caught.value)
    assert "take autocast, .half() and .bfloat16() out of forward" in str(caught.value)
    assert _export(Head(lambda x, _: x), tmp_path).parity.passed


def test_forward_of_any_arguments_is_exported_as_averaged_weights_have_it(tmp_path: Path) -> None:
    module = Head(lambda x, _: x)
    result = _export(torch.optim.swa_utils.AveragedModel(module), tmp_path)
    np.testing.assert_allclose(_scores(result.path, _pixels()), _said(Head(lambda x, _: x.softmax(1))), atol=1e-5)


def test_outputs_that_only_training_has_are_no_choice(tmp_path: Path) -> None:
    class Net(Head):
        def forward(self, x: torch.Tensor) -> Any:
            logits = super().forward(x)
            return Pair(logits, x) if self.training else logits

    result = _export(Net(lambda x, _: x).train(), tmp_path)
    assert not [note for note in result.notes if "exported" in note]
