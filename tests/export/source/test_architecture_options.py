"""Choices of an architecture: from the command line, the weights or the default, into graph and manifest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgeport_export import ExportConfig, export
from edgeport_export.cli import main
from edgeport_export.source.subject import find_subject
from edgeport_models import ARCHITECTURES
from edgeport_models.weights import init_random
from edgeport_runtime import Classifier, WeightsError, load_manifest
from edgeport_runtime.outputs.metrics import relative_l2
from speed import slow_but

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("pooling", slow_but(["mean"], ["token", "mean"]))
@pytest.mark.parametrize("positions", slow_but(["sinusoidal"], ["learned", "sinusoidal"]))
def test_every_form_of_vit_keeps_parity_at_another_size(positions: str, pooling: str, tmp_path: Path) -> None:
    argv = ["vit_digits", "--positions", positions, "--pooling", pooling, "--image-size", "20"]
    assert main([*argv, "-o", str(tmp_path / "bundle")]) == 0
    manifest = load_manifest(tmp_path / "bundle")
    assert manifest.architecture["options"] == {"positions": positions, "pooling": pooling}
    assert manifest.provenance["sources"]["positions"] == "command line"
    assert manifest.contract.preprocess.image_size == 20


def test_weights_of_other_positions_do_not_fit(tmp_path: Path) -> None:
    weights = tmp_path / "vit.pth"
    torch.save(ARCHITECTURES["vit_digits"].build().state_dict(), weights)
    config = ExportConfig(architecture="vit_digits", weights=weights, output=tmp_path / "bundle")
    with pytest.raises(WeightsError, match=r"unexpected: encoder\.pos_embedding"):
        export(replace(config, positions="sinusoidal"))
    with pytest.raises(WeightsError, match="unexpected: class_token"):
        export(replace(config, pooling="mean"))


def _googlenet(path: Path) -> torch.nn.Module:
    """GoogLeNet in torchvision's keys, with logits of order 1."""
    torch.manual_seed(0)
    module = ARCHITECTURES["googlenet"].build(num_classes=5, image_size=64, transform_input=True)
    init_random(module, head="fc", input_shape=(3, 64, 64), seed=0)
    save_file(module.state_dict(), path)
    return module


def test_random_weights_of_a_network_with_dropout_leave_the_callers_random_numbers(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    find_subject(ExportConfig(architecture="googlenet", image_size=32, output=tmp_path / "bundle"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_transform_input_is_torchvisions(tmp_path: Path) -> None:
    path = tmp_path / "googlenet.safetensors"
    module = _googlenet(path)
    x_BCHW = np.random.default_rng(0).standard_normal((4, 3, 64, 64), dtype=np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x_BCHW)).numpy()
        # By hand: back to 0 to 1, then 0.5 and 0.5.
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        plain = ARCHITECTURES["googlenet"].build(num_classes=5, image_size=64).eval()
        plain.load_state_dict(module.state_dict())
        by_hand = plain((torch.from_numpy(x_BCHW) * std + mean - 0.5) / 0.5).numpy()
    # Measured: 2e-6
    assert relative_l2(expected, by_hand).max() < 1e-5
    argv = ["googlenet", "--weights", str(path), "--image-size", "64", "--transform-input"]
    assert main([*argv, "-o", str(tmp_path / "bundle")]) == 0
    with Classifier.load(tmp_path / "bundle") as classifier:
        # Measured: 2e-6
        assert relative_l2(classifier.logits(x_BCHW), expected).max() < 1e-5
    assert load_manifest(tmp_path / "bundle").architecture["options"] == {"transform_input": True}


def test_published_weights_are_known_by_their_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "googlenet.safetensors"
    _googlenet(path)
    assert ARCHITECTURES["googlenet"].published == {"1378be20": {"transform_input": True}}
    spec = replace(
        ARCHITECTURES["googlenet"],
        published={hashlib.sha256(path.read_bytes()).hexdigest()[:8]: {"transform_input": True}},
    )
    monkeypatch.setattr("edgeport_export.source.subject.find_spec", lambda _name: spec)
    config = ExportConfig(architecture="googlenet", weights=path, image_size=64, output=tmp_path / "bundle")
    subject = find_subject(config)
    assert subject.options == {"transform_input": True}
    assert subject.sources["transform_input"] == "checkpoint"
    # Whoever normalizes otherwise, or says so, is not overruled.
    half = (0.5, 0.5, 0.5)
    for options in ({"mean": half, "std": half}, {"transform_input": False}):
        assert find_subject(replace(config, **options)).options == {"transform_input": False}  # type: ignore[arg-type]


@pytest.mark.slow
def test_options_of_trained_weights_come_with_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = ARCHITECTURES["vit_digits"].build(pooling="mean")
    init_random(module, head="heads.head", input_shape=(1, 16, 16), seed=0)
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    entry: dict[str, Any] = {"architecture": "vit_digits", "task": "multiclass", "options": {"pooling": "mean"}}
    (tmp_path / "config.json").write_text(json.dumps({"edgeport": entry}))
    config = ExportConfig(architecture="vit_digits", weights=tmp_path, output=tmp_path / "bundle")
    manifest = export(config).manifest
    assert manifest.architecture["options"] == {"positions": "learned", "pooling": "mean"}
    assert manifest.provenance["sources"]["pooling"] == "config.json"
    for damaged, message in (
        ({**entry, "options": {"pooling": "max"}}, "option pooling is 'max'; choose one of token, mean"),
        ({**entry, "options": []}, "options is of type list, not an object"),
        ({**entry, "task": "ranking"}, "task is 'ranking'; it must be one of multiclass, binary, multilabel"),
        ("x", "edgeport is of type str, not an object"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"edgeport": damaged}))
        with pytest.raises(WeightsError, match=f"config.json of .*: {message}"):
            export(replace(config, force=True))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lenet5", "--pooling", "mean"], "lenet5: it has no option pooling; its options: none"),
        (["resnet18", "--transform-input"], "resnet18: it has no option transform_input"),
        (
            ["vit", "--no-transform-input"],
            "vit_b_16: it has no option transform_input; its options: ",
        ),
        (
            ["net.py:make", "--image-size", "8", "--positions", "learned"],
            "--positions applies to EdgePort's own",
        ),
    ],
)
def test_options_that_an_architecture_lacks_have_status_2(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "-o", str(tmp_path / "bundle")]) == 2
    assert message in capsys.readouterr().err
