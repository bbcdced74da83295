"""Modules of the user's own: by file, by name and from Python; what fails says where in the user's source."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgeport_export import ExportConfig, export
from edgeport_export.cli import main
from edgeport_runtime import Classifier, ExportError, InputError, TraceError, WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# Branches, a block of its own, a buffer, dropout; BGR input of which a mean in pixel values is subtracted.
NET = """
    import torch
    from torch import nn
    from helper import scale


    class Gate(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.squeeze = nn.Linear(channels, channels)
            self.register_buffer("scale", torch.full((1, channels, 1, 1), scale))

        def forward(self, x):
            return x * torch.sigmoid(self.squeeze(x.mean((2, 3))))[:, :, None, None] * self.scale


    class Net(nn.Module):
        def __init__(self, num_classes=5):
            super().__init__()
            self.left = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
            self.right = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.LeakyReLU(0.1), Gate(8))
            self.dropout = nn.Dropout(0.5)
            self.head = nn.Linear(16, num_classes)

        def forward(self, x):
            x = torch.cat([self.left(x), self.right(x)], dim=1)
            return self.head(self.dropout(x.amax((2, 3))))


    def make():
        torch.manual_seed(0)
        return Net()


    def make_binary():
        torch.manual_seed(0)
        return Net(1)
"""
OPTIONS = ("--image-size", "24", "--color", "bgr", "--scale", "byte", "--mean", "104", "117", "123")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A file of the user's own that imports a neighbour."""
    (tmp_path / "own").mkdir()
    path = tmp_path / "own" / "net.py"
    path.write_text(textwrap.dedent(NET))
    (path.parent / "helper.py").write_text("scale = 1.5\n")
    return path


def _write(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "bad.py"
    path.write_text("import torch\nfrom torch import nn\n\n\n" + textwrap.dedent(body))
    return path


def _with_forward(*lines: str) -> str:
    body = "\n".join(f"        {line}" for line in lines)
    return (
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(3, 4)\n\n"
        f"    def forward(self, x):\n{body}\n\n\n"
        "def make():\n    return Net()\n"
    )


def _expected(net: Path, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the user's own code computes: BGR, 0 to 255, the mean subtracted."""
    namespace: dict[str, Any] = {"__name__": "net"}
    source = net.read_text().replace("from helper import scale", "scale = 1.5")
    exec(compile(source, str(net), "exec"), namespace)
    x_HWC = pixels_HWC[:, :, ::-1].astype(np.float32) - np.array([104, 117, 123], np.float32)
    with torch.no_grad():
        logits: NDArray[np.float32] = namespace["make"]().eval()(torch.tensor(x_HWC).permute(2, 0, 1)[None])[0].numpy()
    return logits


def test_module_by_file_keeps_parity_with_its_own_preprocessing(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    assert main([f"{net}:make", "-o", str(bundle), *OPTIONS]) == 0
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    with Classifier.load(bundle) as classifier:
        predictions = classifier.predict(Image.fromarray(pixels), top_k=5)
        manifest = classifier.manifest
    expected = torch.softmax(torch.from_numpy(_expected(net, pixels)).double(), 0).numpy()
    assert expected.std() > 0.05
    scores = {p.index: p.score for p in predictions}
    # Measured: 5e-8
    np.testing.assert_allclose([scores[i] for i in range(5)], expected, rtol=0, atol=1e-5)
    assert manifest is not None
    assert manifest.architecture["name"] == f"{net.name}:make"
    assert manifest.weights["source"] == "module"
    assert [stage["stage"] for stage in manifest.parity][-1] == "runtime fp32"
    shown = capsys.readouterr().out
    assert "input: bgr 24x24, batch any; resize shorter side to 24 (bilinear), scale byte, mean [104.0, 117.0" in shown


def test_module_by_name_is_found_from_the_current_folder(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(net.parent)
    options = ["--image-size", "24", "--task", "binary", "--activation", "in-graph"]
    assert main(["net:make_binary", "-o", str(tmp_path / "bundle"), *options]) == 0
    assert "net:make_binary against PyTorch float32" in capsys.readouterr().out
    with Classifier.load(tmp_path / "bundle") as classifier:
        assert classifier.contract.task == "binary"
        assert classifier.outputs(np.zeros((2, 3, 24, 24), np.float32)).shape == (2, 1)


def test_module_in_python_is_left_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3))
    module.half().train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    config = ExportConfig(output=tmp_path / "bundle", image_size=16, channels=1, task="multilabel", threshold=(0.3,))
    result = export(module, config)
    assert result.manifest.architecture["name"] == "Sequential"
    assert result.manifest.contract.thresholds == (0.3,)
    sources = result.manifest.provenance["sources"]
    assert {sources[name] for name in ("task", "threshold", "image_size", "color")} == {"command line"}
    assert {sources[name] for name in ("num_classes", "resize", "scale")} == {"architecture default"}
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    for key, value in module.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])


def test_weights_of_a_module_of_ones_own_come_from_a_file(net: Path, tmp_path: Path) -> None:
    for name, factory in (("bundle", "make"), ("other", "make_binary")):
        namespace: dict[str, Any] = {}
        exec(compile(net.read_text().replace("from helper import scale", "scale = 1.5"), "net", "exec"), namespace)
        state = {key: value + 0.01 for key, value in namespace[factory]().state_dict().items()}
        torch.save(state, tmp_path / f"{name}.pth")
    base = {"architecture": f"{net}:make", "image_size": 24}
    plain = export(ExportConfig(output=tmp_path / "plain", **base))
    given = export(ExportConfig(output=tmp_path / "given", weights=tmp_path / "bundle.pth", **base))
    assert given.manifest.weights["file"] == "bundle.pth"
    assert given.manifest.variants[0].sha256 != plain.manifest.variants[0].sha256
    with pytest.raises(WeightsError, match=r"(?s)other\.pth do not fit net\.py:make: .*other shape: head\.weight is"):
        export(ExportConfig(output=tmp_path / "x", weights=tmp_path / "other.pth", **base))


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        (
            ("if x.sum() > 0:", "    x = x * 2", "return self.head(x.mean((2, 3)))"),
            "line 11: if x.sum() > 0:",
            "control flow depends on the values of its input",
        ),
        (
            ("while x.norm() > 1:", "    x = x / 2", "return self.head(x.mean((2, 3)))"),
            "line 11: while x.norm() > 1:",
            "compute both sides and choose with torch.where",
        ),
        (
            ("x = torch.special.bessel_j0(x)", "return self.head(x.mean((2, 3)))"),
            "line 11: x = torch.special.bessel_j0(x)",
            "the operator prims.bessel_j0 has no counterpart in ONNX",
        ),
    ],
)
def test_what_cannot_be_traced_is_named_with_its_line(
    lines: tuple[str, ...], line: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = _write(tmp_path, _with_forward(*lines))
    config = ExportConfig(architecture=f"{path}:make", output=tmp_path / "bundle", image_size=8)
    with pytest.raises(TraceError) as caught:
        export(config)
    assert message in str(caught.value)
    assert f"bad.py, {line}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.output.exists()
    assert capfd.readouterr() == ("", "")  # PyTorch's own pages of advice stay away


def test_the_deepest_line_of_the_user_is_named(tmp_path: Path) -> None:
    helper = "def pick(x):\n    return x * 2 if x.sum() > 0 else x\n\n\n"
    path = _write(tmp_path, helper + _with_forward("return self.head(pick(x).mean((2, 3)))"))
    with pytest.raises(TraceError, match=r"bad\.py, line 6: return x \* 2 if x\.sum\(\) > 0 else x"):
        export(ExportConfig(architecture=f"{path}:make", output=tmp_path / "bundle", image_size=8))


def test_a_batch_that_is_frozen_by_the_users_code_is_found(tmp_path: Path) -> None:
    path = _write(tmp_path, _with_forward("x = x * 2 if x.shape[0] == 2 else x", "return self.head(x.mean((2, 3)))"))
    config = ExportConfig(architecture=f"{path}:make", output=tmp_path / "bundle", image_size=8)
    with pytest.raises(ExportError, match=r"batch|stage exported"):
        export(config)
    assert not config.output.exists()


def test_a_batch_that_the_code_makes_a_number_of_is_named_and_the_remedies_export(tmp_path: Path) -> None:
    path = _write(tmp_path, _with_forward("return self.head(x.mean((2, 3))).view(len(x), -1)"))
    options = {"output": tmp_path / "bundle", "image_size": 8, "quantize": (), "force": True}
    with pytest.raises(TraceError, match=r"the batch size is fixed .*; use x\.shape\[0\] or -1 where it says len\(x\)"):
        export(ExportConfig(architecture=f"{path}:make", **options))
    assert export(ExportConfig(architecture=f"{path}:make", batch=1, **options)).parity.passed
    path.write_text(path.read_text().replace("len(x)", "x.shape[0]"))
    assert export(ExportConfig(architecture=f"{path}:make", **options)).manifest.contract.batch is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0\n", r"importing raises ZeroDivisionError: division by zero \(at .*bad\.py, line 5: 1 / 0\)"),
        ("import nothing_of_that_name\n", "importing raises ModuleNotFoundError: No module named 'nothing_of_that"),
        ("def make(\n", "importing raises SyntaxError"),
        (
            "def make(size):\n    return nn.ReLU()\n",
            r"TypeError: .*'size'; name a function that takes no arguments: def make\(\): return make\(\.\.\.\)$",
        ),
        ("class make(nn.ReLU):\n    def __init__(self, num_classes): ...\n", r"'num_classes'; add --num-classes N$"),
        ("def make():\n    return int('x', 'y')\n", r"calling make\(\) raises TypeError: .* \(at .*line 6: [^;]*\)$"),
        ("def make():\n    raise OSError('no weights')\n", r"OSError: no weights \(at .*line 6: raise OSError"),
        (
            "raise SystemExit('usage: train.py DATA')\n",
            r"importing raises SystemExit: usage: train\.py DATA \(at .*line 5",
        ),
        ("def make():\n    return 5\n", r"make\(\) gives int, not a torch\.nn\.Module"),
        ("make = nn.Identity\n", r"gives shape \(2, 3, 8, 8\) for a batch of 2, not \(2, K\)"),
        (
            _with_forward("return x, x"),
            r"gives tuple of 0 \(2, 3, 8, 8\), 1 \(2, 3, 8, 8\), none of shape",
        ),
        (
            _with_forward("return {'logits': x}"),
            r"gives dict of logits \(2, 3, 8, 8\), none of shape \(batch, K\)",
        ),
        (_with_forward("return x.mean((1, 2, 3))"), r"gives shape \(2,\) for a batch of 2"),
        (_with_forward("return x.flatten(1).argmax(1, keepdim=True)"), r"gives torch\.int64, not torch\.float32"),
        (_with_forward("return self.head(x)"), r"raises on an input of shape \(2, 3, 8, 8\): RuntimeError: .*line 11"),
    ],
)
def test_code_that_fails_is_named(body: str, message: str, tmp_path: Path) -> None:
    path = _write(tmp_path, body)
    with pytest.raises(ExportError, match=message):
        export(ExportConfig(architecture=f"{path}:make", output=tmp_path / "bundle", image_size=8))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere.py:make", r"nowhere\.py does not exist; give path/to/file\.py:factory"),
        ("no_such_package.net:make", "No module named 'no_such_package'; give path/to"),
        ("math:make", "math has no callable 'make'"),
        (":make", "names no factory; give"),
        ("net.py:", "names no factory; give"),
        ("own/net.py", r"names no factory; give own/net\.py:NAME"),
    ],
)
def test_reference_that_leads_nowhere_is_refused(reference: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(ExportConfig(architecture=reference, output=tmp_path / "bundle", image_size=8))


def test_a_finished_module_may_stand_in_the_place_of_its_factory(net: Path, tmp_path: Path) -> None:
    with net.open("a") as file:
        file.write("\nmodel = make()\n")
    result = export(ExportConfig(architecture=f"{net}:model", output=tmp_path / "bundle", image_size=8))
    assert (result.manifest.architecture["name"], result.manifest.contract.num_classes) == ("net.py:model", 5)


def test_misspelt_factory_lists_the_closest(net: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no callable 'mak'; closest: make"):
        export(ExportConfig(architecture=f"{net}:mak", output=tmp_path / "bundle", image_size=8))


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ([], 2, "--image-size is missing; a module of your own needs"),
        (["--image-size", "24", "--num-classes", "7"], 1, "--num-classes is 7, but net.py:make gives 5"),
        (
            ["--image-size", "24", "--task", "binary"],
            1,
            "gives 5 logits, but a binary task has one; use ",
        ),
        (["--image-size", "24", "--threshold", "0.4", "0.5"], 1, "a multiclass task has one value, or none"),
        (
            ["--image-size", "24", "--task", "multilabel", "--threshold", "0.4", "0.5"],
            1,
            "has one value, or 5 (one per class)",
        ),
        (
            ["--image-size", "24", "--task", "multilabel", "--threshold", "1"],
            2,
            "--threshold is (1.0,); every value must be above 0",
        ),
        (["--image-size", "24", "--pooling", "mean"], 2, "--pooling applies to EdgePort's own architectures"),
        (
            ["--image-size", "24", "--channels", "1", "--weights", "x.pth", "--sum-channels"],
            2,
            "--sum-channels applies to EdgePort's own architectures",
        ),
        (["--image-size", "24", "--color", "grey"], 1, "raises on an input of shape (2, 1, 24, 24)"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], status: int, message: str, net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"{net}:make", "-o", str(tmp_path / "bundle"), *options]) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "bundle").exists()


def test_a_lookup_that_fails_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lazy.py"
    path.write_text("def __getattr__(name):\n    import a_library_that_is_absent\n")
    assert main([f"{path}:Net", "--image-size", "8", "-o", str(tmp_path / "bundle")]) == 1
    message = capsys.readouterr().err
    assert "looking Net up raises ModuleNotFoundError: No module named 'a_library_that_is_absent'" in message
    assert message.count("\n") == 1


class _Attends(nn.Module):
    """Attention within windows: (B, heads, windows, N, d), or of three axes."""

    def __init__(self, num_axes: int) -> None:
        super().__init__()
        self.lead = (2, 4)[: num_axes - 3]
        self.qkv, self.head = nn.Linear(3, 24), nn.Linear(8, 5)
        self.register_buffer("mask", torch.randn(1, *[1] * len(self.lead), 1))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        tokens = self.qkv(x_BCHW.flatten(2).transpose(1, 2))
        q, k, v = (part.reshape(part.shape[0], *self.lead, -1, 8) for part in tokens.chunk(3, dim=-1))
        attended = nn.functional.scaled_dot_product_attention(q, key=k, value=v, attn_mask=self.mask, scale=0.3)
        result: torch.Tensor = self.head(attended.flatten(1, -2).mean(1))
        return result


@pytest.mark.parametrize("num_axes", [3, 5])
def test_attention_of_other_than_four_axes(num_axes: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = _Attends(num_axes).eval()
    config = ExportConfig(output=tmp_path / "bundle", image_size=8, quantize=())
    x_BCHW = torch.rand(3, 3, 8, 8)
    with torch.no_grad(), Classifier.load(export(module, config).path) as classifier:
        expected_BK = module(x_BCHW).numpy()
        np.testing.assert_allclose(classifier.logits(x_BCHW.numpy()), expected_BK, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["zero head", "huge logits"])
def test_a_module_that_was_never_trained_gets_logits(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = nn.Linear(8, 5)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    with torch.no_grad():
        if kind == "zero head":
            head.weight.zero_()
        else:
            module[0].weight.mul_(1e6)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    result = export(module, ExportConfig(output=tmp_path / "bundle", image_size=8, quantize=()))
    assert "the module was never trained; its logits were brought to order 1, and mean nothing" in result.notes
    assert result.manifest.weights["source"] == "random"
    with Classifier.load(result.path) as classifier:
        assert 0.1 < classifier.logits(np.random.default_rng(0).random((8, 3, 8, 8), np.float32)).std() < 10
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_trained_weights_stay_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    module(torch.randn(4, 3, 8, 8))
    with torch.no_grad():
        module[0].weight.mul_(1e6)
    result = export(module.eval(), ExportConfig(output=tmp_path / "bundle", image_size=8, quantize=()))
    assert result.manifest.weights["source"] == "module"
