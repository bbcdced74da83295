"""Image classifiers of transformers by folder or repository: exported as the library runs them, or refused."""

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

from edgeport_export.cli import main
from edgeport_export.source.huggingface import timm_name
from edgeport_models.weights import Source
from edgeport_runtime import Classifier

if TYPE_CHECKING:
    from collections.abc import Callable

E2E = Path(__file__).parents[2] / "e2e"
COMMAND = "import sys; from edgeport_export.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def environment(peer: Callable[[str], Path]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(peer("transformers")), *filter(None, sys.path)])}


@pytest.fixture(scope="module")
def networks(environment: dict[str, str], once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    script = [sys.executable, E2E / "huggingface_networks.py"]
    return once("huggingface", lambda folder: subprocess.run([*script, folder], env=environment, check=True))


def test_a_folder_brings_all_that_the_bundle_says(networks: Path, environment: dict[str, str], tmp_path: Path) -> None:
    argv = [f"hf:{networks / 'vit'}", "--quantize", "none", "--json", "-o", str(tmp_path / "bundle")]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *argv], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    manifest: dict[str, Any] = json.loads(done.stdout)["manifest"]
    assert manifest["architecture"]["name"] == "hf:vit"
    assert manifest["architecture"]["source"].endswith(", ViTForImageClassification")
    contract, sources = manifest["contract"], manifest["provenance"]["sources"]
    assert (contract["task"], contract["labels"]) == ("multilabel", ["cat", "dog", "bird", "fish"])
    assert {sources["task"], sources["labels"]} == {"config.json"}
    preprocess = contract["preprocess"]
    assert (preprocess["resize"], preprocess["resize_size"], preprocess["image_size"]) == ("shorter", 36, 32)
    assert preprocess["crop_offset"] == "down"
    assert {sources[name] for name in ("resize", "crop_offset", "mean", "std")} == {"preprocessor_config.json"}
    assert manifest["weights"]["layout"] == "Hugging Face transformers"
    assert len(manifest["weights"]["shards"]) > 1
    images, expected = torch.load(networks / "logits.pth")
    with Classifier.load(tmp_path / "bundle", device="cpu") as classifier:
        np.testing.assert_allclose(classifier.logits(images.numpy()), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_half_precision_becomes_float32(networks: Path) -> None:
    ours, theirs = torch.load(networks / "half.pth")
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_what_is_not_such_a_network_is_refused(networks: Path) -> None:
    refusals = json.loads((networks / "refusals.json").read_text())
    for name, reason in {
        "an encoder": "architectures is 'ViTModel', which is no image classifier of transformers",
        "of another type": "no image classifier of transformers (model_type 'nonsense')",
        "of nothing": "config.json of",
        "without a description": "has no config.json that names the network; give what save_pretrained wrote",
        "of colours": "takes numbers of colours in place of images",
        "of another size": "do not fit ViTForImageClassification: of another shape: ",
        "of more layers": "do not fit ViTForImageClassification: missing: ",
        "of another task": "problem_type is 'regression'",
    }.items():
        assert reason in refusals[name]
        assert "\n" not in refusals[name]


@pytest.mark.parametrize(
    ("changes", "argv", "told"),
    [
        ({"auto_map": {"AutoModel": "net.Net"}}, [], "EdgePort runs no code of a repository (trust_remote_code)"),
        ({"quantization_config": {"bits": 4}}, [], "its weights are already quantized; give the float32 network"),
        ({}, ["--weights", "other.pth"], "brings its weights; omit --weights"),
        ({}, ["--pooling", "mean"], "--pooling applies to EdgePort's own architectures"),
        ({}, [], "transformers is not installed; install it: pip install transformers"),
    ],
)
def test_what_could_run_code_or_contradicts_is_refused(
    changes: dict[str, Any],
    argv: list[str],
    told: str,
    networks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    for file in (networks / "vit").iterdir():
        (folder / file.name).symlink_to(file)
    document = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(document))
    assert main([f"hf:{folder}", *argv, "-o", str(tmp_path / "bundle")]) in (1, 2)
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("reference", "told"),
    [("hf:absent", "absent is no folder; give hf:FOLDER"), ("hf://alone", "write a repository as hf://OWNER/NAME")],
)
def test_what_is_not_there_is_told(
    reference: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([reference, "-o", str(tmp_path / "bundle")]) in (1, 2)
    assert told in capsys.readouterr().err


def test_a_network_of_timm_is_told_by_its_description() -> None:
    def source(**config: Any) -> Source:
        return Source(name="net", file=Path("model.safetensors"), config=config)

    assert timm_name(source(architecture="resnet10t", pretrained_cfg={})) == "timm:resnet10t"
    assert timm_name(source(architecture="resnet10t", model_type="timm_wrapper")) == "timm:resnet10t"
    assert timm_name(source(architectures=["ViTForImageClassification"], model_type="vit")) is None
