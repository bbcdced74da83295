"""Checkpoints for modules of the user's own, as people save them: the weights that they hold are those exported."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from cifar10 import CLASSES
from edgeport_export import ExportConfig
from edgeport_export.cli import main
from edgeport_export.source.subject import find_subject
from edgeport_runtime import Classifier, InputError, WeightsError
from edgeport_runtime.pixels.decode import find_images
from edgeport_runtime.pixels.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CIFAR = {"do_resize": False, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PUBLISHED = "weights/resnet20-12fca82f.th"
# Of each file, where its weights are, and what stands before their keys.
CASES = {
    "model_best.pth.tar": ("state_dict", ""),
    "tutorial.pth": ("model_state_dict", ""),
    "net.pth": ("net", ""),
    "compiled.pth": (None, "_orig_mod."),
    "lightning.ckpt": ("state_dict", "model."),
    "lightning_criterion.ckpt": ("state_dict", "model."),
    "npscalar.pth": ("state_dict", ""),
    "path.pth": ("state_dict", ""),
}
PLAIN_KEYS = ("0.weight", "0.bias", "3.weight", "3.bias")
OWN_RESNET = (
    'from edgeport_models import ARCHITECTURES\n\n\ndef make():\n    return ARCHITECTURES["resnet20"].build()\n'
)


def _reference(state: dict[str, torch.Tensor], x_BCHW: torch.Tensor) -> torch.Tensor:
    """What ``people.py:plain`` computes, by PyTorch's functions alone."""
    conv, bias, weight, offset = (state[key] for key in PLAIN_KEYS)
    x_BC = nn.functional.conv2d(x_BCHW, conv, bias, stride=2, padding=1).mean((2, 3))
    return x_BC @ weight.T + offset


def _expected(path: Path, entry: str | None, prefix: str) -> dict[str, torch.Tensor]:
    """The weights as PyTorch reads the file without any restriction."""
    content = torch.load(path, weights_only=False)
    state = content if entry is None else content[entry]
    return {key: state[f"{prefix}{key}"] for key in PLAIN_KEYS}


@pytest.mark.parametrize("file", CASES)
def test_checkpoints_as_people_save_them(file: str, shared: Callable[[str], Path], tmp_path: Path) -> None:
    path, people = shared(f"cases/checkpoints/{file}"), shared("cases/modules/people.py")
    config = ExportConfig(architecture=f"{people}:plain", output=tmp_path, weights=path, image_size=8)
    subject = find_subject(config)
    x_BCHW = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = _reference(_expected(path, *CASES[file]), x_BCHW)
    assert expected.std() > 0.01
    assert torch.allclose(subject.module(x_BCHW), expected, rtol=0, atol=1e-6)
    note = "left out of the weights, not the network's: criterion (of a loss)"
    assert subject.weights.get("note") == (note if "criterion" in file else None)
    assert "key" not in subject.weights


def test_there_is_a_case_for_every_file(shared: Callable[[str], Path]) -> None:
    assert sorted(path.name for path in shared("cases/checkpoints").iterdir()) == sorted(CASES)


def test_the_bundle_has_the_weights_and_says_what_was_left_out(
    shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An average and the last weights in a Lightning file with a loss; the other is chosen by its key."""
    last = torch.load(shared("cases/checkpoints/lightning_criterion.ckpt"), weights_only=False)["state_dict"]
    average = {key: value * 2 for key, value in last.items()}
    path = tmp_path / "both.ckpt"
    torch.save({"state_dict": last, "state_dict_ema": average, "epoch": 3}, path)
    people = shared("cases/modules/people.py")
    options = ["--weights", str(path), "--image-size", "8", "--quantize", "none"]
    assert main([f"{people}:plain", "-o", str(tmp_path / "bundle"), *options]) == 0
    note = "weights taken from state_dict_ema, not from state_dict (--weights-key chooses); left out of the weights"
    assert f"note: {note}" in capsys.readouterr().out
    x_BCHW = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with Classifier.load(tmp_path / "bundle") as classifier:
        logits = torch.from_numpy(classifier.logits(x_BCHW.numpy()))
        manifest = classifier.manifest
    state = {key.removeprefix("model."): value for key, value in average.items()}
    assert torch.allclose(logits, _reference(state, x_BCHW), rtol=0, atol=1e-5)
    assert manifest is not None
    assert (manifest.weights["key"], manifest.weights["file"]) == ("state_dict_ema", "both.ckpt")
    assert manifest.weights["note"].startswith(note)


Images = tuple[list["Path"], list[str]]


@pytest.fixture(scope="module")
def images(shared: Callable[[str], Path]) -> Images:
    """The first ten of CIFAR-10's test images in each class, and their classes."""
    folders = sorted(shared("data/cifar10/test").iterdir())
    paths = [path for folder in folders for path in find_images(folder)[:10]]
    return paths, [path.parent.name for path in paths]


def _correct(config: ExportConfig, images: Images) -> int:
    """Right answers out of a hundred, preprocessed and named as the contract says."""
    subject = find_subject(config)
    labels, spec = subject.contract.labels or CLASSES, subject.contract.preprocess
    x_BCHW = torch.from_numpy(np.stack([preprocess(path, spec) for path in images[0]]))
    with torch.no_grad():
        classes = subject.module(x_BCHW).argmax(dim=1)
    return sum(labels[index] == name for index, name in zip(classes.tolist(), images[1], strict=True))


@pytest.mark.parametrize("names", [("model", "model_ema"), ("net", "net_ema")])
def test_which_of_two_is_taken_decides_the_accuracy(
    names: tuple[str, str], images: Images, shared: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of the trained weights and weights of noise, each under both names: what is told is what is taken."""
    good = torch.load(shared(PUBLISHED), map_location="cpu", weights_only=True)["state_dict"]
    torch.manual_seed(0)
    bad = {key: torch.randn_like(value.float()) * 0.01 if value.ndim > 1 else value for key, value in good.items()}
    conventional = names[0] if names[0] == "net" else names[1]
    for good_name, bad_name in (names, names[::-1]):
        path = tmp_path / f"{good_name}.pth"
        torch.save({bad_name: bad, good_name: good, "epoch": 90}, path)
        config: dict[str, Any] = {"architecture": "resnet20", "output": tmp_path / "out", "weights": path}
        subject = find_subject(ExportConfig(**config))
        assert subject.weights["key"] == conventional
        assert f"weights taken from {conventional}, not from " in subject.weights["note"]
        found = _correct(ExportConfig(**config), images)
        assert found == (93 if good_name == conventional else pytest.approx(10, abs=10))
        assert _correct(ExportConfig(**config, weights_key=good_name), images) == 93


@pytest.fixture
def folder(shared: Callable[[str], Path], tmp_path: Path) -> Path:
    """A user's own module, and its trained weights in a folder as transformers saves it."""
    (tmp_path / "own.py").write_text(OWN_RESNET)
    (tmp_path / "saved").mkdir()
    shutil.copy(shared(PUBLISHED), tmp_path / "saved" / "pytorch_model.bin")
    return tmp_path / "saved"


def _config(folder: Path, **options: Any) -> ExportConfig:
    own = f"{folder.parent / 'own.py'}:make"
    return ExportConfig(architecture=own, output=folder.parent / "out", weights=folder, **options)


def _write(folder: Path, name: str, document: Any) -> None:
    (folder / name).write_text(json.dumps(document))


def test_files_beside_the_weights_of_an_own_module_are_used(folder: Path, images: Images) -> None:
    # Without normalization, which is what a module that nothing is known of gets.
    assert _correct(_config(folder, image_size=32), images) == 40
    order = (*CLASSES[5:], *CLASSES[:5])
    _write(folder, "preprocessor_config.json", CIFAR)
    _write(folder, "config.json", {"image_size": 32, "id2label": dict(enumerate(CLASSES))})
    assert _correct(_config(folder), images) == 93
    subject = find_subject(_config(folder))
    assert subject.contract.labels == CLASSES
    told = {name: subject.sources[name] for name in ("mean", "std", "resize", "image_size", "labels", "scale")}
    assert {told.pop(name) for name in ("image_size", "labels")} == {"config.json"}
    assert set(told.values()) == {"preprocessor_config.json"}
    assert "note" not in subject.weights
    _write(folder, "config.json", {"image_size": 32, "id2label": dict(enumerate(order))})
    assert _correct(_config(folder), images) < 20


def test_the_command_line_overrides_the_files_of_an_own_module(folder: Path, images: Images) -> None:
    _write(folder, "preprocessor_config.json", CIFAR | {"image_mean": [0.9, 0.9, 0.9]})
    _write(folder, "config.json", {"problem_type": "multi_label_classification"})
    config = _config(folder, image_size=32, mean=(0.485, 0.456, 0.406), task="multiclass")
    assert find_subject(config).sources["mean"] == "command line"
    assert _correct(config, images) == 93
    assert find_subject(_config(folder, image_size=32)).contract.task == "multilabel"


def test_a_file_that_is_not_used_is_always_told(folder: Path) -> None:
    _write(folder, "config.json", {"learning_rate": 0.1})
    _write(folder, "preprocessor_config.json", {"image_mean": [0.5] * 3})
    _write(folder, "class_to_idx.json", {name: i for i, name in enumerate(CLASSES)})
    named = ExportConfig(architecture="resnet20", output=folder.parent / "out", weights=folder)
    unused = "nothing was taken from config.json beside the weights"
    labels = "class_to_idx.json beside the weights is not read; give it with --labels"
    for config in (named, _config(folder, image_size=32)):
        assert find_subject(config).weights["note"] == f"{unused}; {labels}"
    options: dict[str, Any] = {"labels": folder / "class_to_idx.json", "mean": (0.5,) * 3, "scale": "unit"}
    config = _config(folder, image_size=32, **options)
    both = "; ".join((unused, "nothing was taken from preprocessor_config.json beside the weights"))
    subject = find_subject(config)
    assert subject.weights["note"] == both
    assert subject.contract.labels == CLASSES


@pytest.mark.parametrize(
    ("name", "document", "error", "message"),
    [
        ("config.json", {"id2label": {"0": "cat"}}, WeightsError, "id2label has 1 names, but the model has 10 classes"),
        ("config.json", {"problem_type": "regression"}, WeightsError, "problem_type is 'regression'"),
        ("preprocessor_config.json", {"do_pad": True}, WeightsError, "do_pad is True; this step is not supported"),
        ("config.json", {"learning_rate": 0.1}, InputError, "--image-size is missing; a module of your own needs"),
    ],
)
def test_files_that_cannot_be_used_are_refused(
    name: str, document: Any, error: type[Exception], message: str, folder: Path
) -> None:
    _write(folder, name, document)
    with pytest.raises(error, match=re.escape(message)):
        find_subject(_config(folder, image_size=None if error is InputError else 32))


def test_the_key_needs_a_checkpoint_that_has_it(folder: Path) -> None:
    with pytest.raises(InputError, match="--weights-key chooses among the entries of a checkpoint; it needs --weights"):
        ExportConfig(architecture="resnet20", output=folder, weights_key="model")
    for config in (
        _config(folder, image_size=32, weights_key="model_ema"),
        ExportConfig(architecture="resnet20", output=folder, weights=folder, weights_key="model_ema"),
    ):
        with pytest.raises(WeightsError, match="nothing under --weights-key model_ema; it holds weights under state_d"):
            find_subject(config)


def test_shipped_weights_are_not_for_an_own_module(folder: Path) -> None:
    config = ExportConfig(architecture=f"{folder.parent / 'own.py'}:make", output=folder, weights="digits")
    with pytest.raises(WeightsError, match=r"'digits' that EdgePort ships are for lenet5, .*, not for own\.py:make"):
        find_subject(config)
