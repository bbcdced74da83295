"""Networks of other libraries by name: found, described and built by the installed library, or refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeport_export import ExportConfig, export
from edgeport_export.cli import main
from edgeport_export.source import libraries
from edgeport_export.source.libraries import num_outputs_in
from edgeport_export.source.processor import CONFIG
from edgeport_export.source.resolve import ARCHITECTURE, LIBRARY, resolve, tell_architecture
from edgeport_export.source.subject import check_options
from edgeport_export.source.untrained import settle
from edgeport_models import ARCHITECTURES
from edgeport_runtime import Classifier
from edgeport_runtime.errors import ExportError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeport_runtime.bundle.contract import Task

E2E = Path(__file__).parents[2] / "e2e"
# The compiled operators of the torchvision beside this PyTorch do not load; its networks do without them.
_DEFAULTS = {ARCHITECTURE: tell_architecture(ARCHITECTURES["resnet18"].preprocess)}
COMMAND = "import sys, tvshim; from edgeport_export.cli import main; sys.exit(main())"


@pytest.fixture
def command(peer: Callable[[str], Path]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``export-model`` in a process of its own that finds timm and torchvision."""
    found = [str(E2E), str(peer("timm")), str(peer("torchvision")), *filter(None, sys.path)]

    def run(*argv: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", COMMAND, *map(str, argv)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(found)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_is_missing_is_named(library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"{library}:resnet18", "-o", str(tmp_path / "bundle")]) == 1
    told = f"error: {library} is not installed; install it: pip install {library}\n"
    assert capsys.readouterr().err == told
    assert main(["--list", library]) == 1
    assert capsys.readouterr().err == told


def test_a_torchvision_of_another_build_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ExportError, match=r"do not load beside this build of PyTorch; install the torchvision that"):
        libraries.find_network("torchvision:resnet18")


def test_options_of_ours_alone_are_refused() -> None:
    config = ExportConfig(architecture="timm:resnet18", output=Path("unused"), pooling="mean")
    with pytest.raises(InputError, match="--pooling applies to EdgePort's own architectures"):
        check_options(config)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["timm:resnt18"], "timm has no image classifier 'resnt18'; closest: timm:resnet18"),
        (["timm:resnet18.no"], "timm:resnet18 has no weights 'no'; it has "),
        (["torchvision:resnet50.V3"], "torchvision:resnet50 has no weights 'V3'; it has IMAGENET1K_V1, IMAGENET1K_V2"),
        (["torchvision:alexnet", "--channels", "1"], "torchvision:alexnet takes 3 channels, not 1"),
        (["timm:vit_base_patch16_224.mae"], "has no head, because the library's weights for it have none; add --num-c"),
        (["swin_tiny_patch4_window7_224"], "did you mean timm:swin_tiny_patch4_window7_224"),
    ],
)
def test_what_a_library_has_not_is_refused(
    argv: list[str], told: str, command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = command(*argv, "-o", tmp_path / "bundle")
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_names_are_listed_by_a_word(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    listed = command("--list", "timm", "mobilenetv3_small", "--json")
    names = json.loads(listed.stdout)
    assert "timm:mobilenetv3_small_100" in names
    assert all(name.startswith("timm:") and "mobilenetv3_small" in name for name in names)
    assert (
        command("--list", "torchvision", "squeeze").stdout == "torchvision:squeezenet1_0\ntorchvision:squeezenet1_1\n"
    )


def test_labels_are_those_that_timm_tells(peer: Callable[[str], Path]) -> None:
    script = (
        "import tvshim, json; from edgeport_export.source.libraries import find_network as find; "
        "print(json.dumps([find(f'timm:{name}').labels for name in ('resnet10t', 'vit_base_patch16_224.mae')]))"
    )
    found = [str(E2E), str(peer("timm")), str(peer("torchvision")), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(found)},
        capture_output=True,
        text=True,
        check=True,
    )
    labels, none = json.loads(done.stdout)
    assert (len(labels), labels[0]) == (1000, "tench, Tinca tinca")
    assert none == []


@pytest.mark.slow
def test_trained_weights_choose_the_head_and_the_description_the_input(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Of timm's MobileNetV3, whose own float32 is further from float64 than other networks'."""
    make = (
        "import sys, tvshim, timm, torch; torch.manual_seed(0); "
        "m = timm.create_model('mobilenetv3_small_050', num_classes=7); "
        "torch.save({'epoch': 3, 'state_dict': {'module.' + k: v for k, v in m.state_dict().items()}}, sys.argv[1]); "
        "x = torch.rand(3, 3, 224, 224); torch.save((x, m.eval()(x).detach()), sys.argv[2])"
    )
    found = {**os.environ, "PYTHONPATH": os.pathsep.join([str(E2E), ".peers/timm", ".peers/torchvision"])}
    root = Path(__file__).parents[3]
    subprocess.run(
        [sys.executable, "-c", make, tmp_path / "w.pth", tmp_path / "l.pth"], env=found, cwd=root, check=True
    )
    bundle = tmp_path / "bundle"
    argv = ["--weights", tmp_path / "w.pth", "--quantize", "none", "--json", "-o", bundle]
    done = command("timm:mobilenetv3_small_050.lamb_in1k", *argv)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)["manifest"]
    assert manifest["architecture"]["name"] == "timm:mobilenetv3_small_050.lamb_in1k"
    assert manifest["architecture"]["source"].startswith("timm ")
    assert manifest["contract"]["num_classes"] == 7
    preprocess: dict[str, Any] = manifest["contract"]["preprocess"]
    assert (preprocess["resize"], preprocess["resize_size"], preprocess["image_size"]) == ("shorter", 256, 224)
    assert preprocess["interpolation"] == "bicubic"
    sources = manifest["provenance"]["sources"]
    assert {sources[name] for name in ("resize", "interpolation", "mean", "std", "image_size")} == {"library"}
    images, expected = torch.load(tmp_path / "l.pth")
    with Classifier.load(bundle, variant="fp32", device="cpu") as classifier:
        logits = classifier.logits(images.numpy())
    distance = np.linalg.norm(logits - expected.numpy(), axis=1) / np.linalg.norm(expected.numpy(), axis=1)
    assert distance.max() <= 1e-4


def test_the_number_of_outputs_is_the_checkpoints() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 10))
    state = {f"model.{key}": value for key, value in module.state_dict().items()}
    assert num_outputs_in(state, module, 10) == 10
    state |= {"model.2.weight": torch.zeros(4, 8), "model.2.bias": torch.zeros(4)}
    assert num_outputs_in(state, module, 10) == 4


@pytest.mark.parametrize("is_zero", [False, True])
def test_random_weights_have_logits_of_order_one(is_zero: bool) -> None:
    torch.manual_seed(0)
    head = nn.Conv2d(8, 5, 1)
    if is_zero:
        nn.init.zeros_(head.weight)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), head, nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    with torch.no_grad():
        settle(module.eval(), 5, (3, 16, 16), seed=0)
        logits = module(torch.randn(8, 3, 16, 16))
    assert 0.01 < float(logits.std(dim=0).mean()) < 10


def test_labels_of_a_library_come_after_those_of_files() -> None:
    told = {LIBRARY: {"labels": ("tench", "shark")}}
    assert resolve(_DEFAULTS | told)["labels"] == (("tench", "shark"), LIBRARY)
    assert resolve(_DEFAULTS | told | {CONFIG: {"labels": ("cat", "dog")}})["labels"] == (("cat", "dog"), CONFIG)


@pytest.mark.parametrize(("task", "num_outputs"), [("multiclass", 5), ("binary", 1)])
def test_a_factory_is_given_the_number_of_classes(task: Task, num_outputs: int, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def make(num_classes=1):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))\n"
    )
    config = ExportConfig(
        architecture=f"{tmp_path / 'own.py'}:make",
        task=task,
        num_classes=5 if task == "multiclass" else 2,
        image_size=8,
        output=tmp_path / "bundle",
        quantize=(),
    )
    assert export(config).manifest.contract.num_outputs == num_outputs


@pytest.mark.slow
def test_two_sides_of_a_library_s_network(command: Callable[..., Any], tmp_path: Path) -> None:
    options = ("-o", tmp_path / "bundle", "--quantize", "none", "--force")
    done = command("torchvision:shufflenet_v2_x0_5", "--image-size", 64, 96, *options)
    assert done.returncode == 0, done.stderr
    preprocess = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["contract"]["preprocess"]
    assert (preprocess["image_size"], preprocess["resize_size"]) == ([64, 96], [73, 109])
    done = command("timm:test_vit", "--image-size", 96, 150, *options)
    assert done.returncode == 1
    assert "the network cannot run on an input of 3x96x150 (channels, height, width)" in done.stderr
    assert done.stderr.count("\n") == 1
