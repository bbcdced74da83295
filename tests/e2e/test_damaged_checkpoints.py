"""Every format as its writer writes it, then damaged: refused by a message that names the file; nothing is run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch

from edgeport_export import ExportConfig
from edgeport_export.source.subject import find_subject as resolve
from edgeport_runtime.errors import WeightsError
from speed import slow_but

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

# library, architecture, file, and a key with its name in EdgePort's layout
FILES = {
    "timm ViT": ("timm", "vit_ti_16", "vit.pth", "norm.bias", "encoder.ln.bias"),
    "timm ResNet": ("timm", "resnet50", "resnet50.safetensors", "bn1.bias", "bn1.bias"),
    "google-research": (
        "timm", "vit_ti_16", "vit_google_weights.npz", "Transformer/encoder_norm/bias", "encoder.ln.bias",
    ),
    "Hugging Face ViT": (
        "transformers", "vit_ti_16", "vit/model.safetensors", "vit.encoder.layer.3.attention.attention.key.weight",
        "encoder.layers.encoder_layer_3.self_attention.in_proj_weight",
    ),
    "Hugging Face ViT, bin": (
        "transformers", "vit_ti_16", "vit_bin/pytorch_model.bin", "vit.layernorm.bias", "encoder.ln.bias",
    ),
    "Hugging Face ResNet": (
        "transformers", "resnet18", "resnet18/model.safetensors", "resnet.embedder.embedder.normalization.bias",
        "bn1.bias",
    ),
    "Lightning": ("lightning", "resnet18", "plain.ckpt", "model.bn1.bias", "bn1.bias"),
}  # fmt: skip
OF_TRANSFORMERS = [name for name, (library, *_) in FILES.items() if library == "transformers"]
PICKLES = [name for name, (_, _, file, *_) in FILES.items() if file.endswith((".pth", ".bin", ".ckpt"))]


def _refusal(architecture: str, path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        resolve(ExportConfig(architecture=architecture, weights=path, output=Path("unused")))
    assert str(caught.value).startswith(f"weights {path}")
    return str(caught.value)


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    if path.suffix == ".npz":
        return dict(np.load(path))
    content = torch.load(path, weights_only=True)
    return dict(content.get("state_dict", content))


def _write(state: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    elif path.suffix == ".npz":
        np.savez(path, **state)
    else:
        torch.save({"state_dict": state} if path.suffix == ".ckpt" else state, path)
    return path


@pytest.mark.parametrize("part", [0.5, 0.999], ids=["half", "almost whole"])
@pytest.mark.parametrize("name", slow_but(OF_TRANSFORMERS, FILES))
def test_truncated(name: str, part: float, written_by: Callable[[str], Path], tmp_path: Path) -> None:
    library, architecture, file, *_ = FILES[name]
    data = (written_by(library) / file).read_bytes()
    path = tmp_path / Path(file).name
    path.write_bytes(data[: int(len(data) * part)])
    assert "is damaged" in _refusal(architecture, path)


@pytest.mark.parametrize("name", slow_but(OF_TRANSFORMERS, FILES))
def test_missing_key(name: str, written_by: Callable[[str], Path], tmp_path: Path) -> None:
    library, architecture, file, key, own_key = FILES[name]
    state = _read(written_by(library) / file)
    del state[key]
    message = _refusal(architecture, _write(state, tmp_path / Path(file).name))
    assert f"do not fit {architecture}: 1 keys missing" in message
    assert f"missing: {own_key} (" in message


@pytest.mark.parametrize("name", slow_but(OF_TRANSFORMERS, FILES))
def test_changed_shape(name: str, written_by: Callable[[str], Path], tmp_path: Path) -> None:
    library, architecture, file, key, own_key = FILES[name]
    state = _read(written_by(library) / file)
    state[key] = state[key][:-1] if isinstance(state[key], np.ndarray) else state[key][:-1].clone()
    message = _refusal(architecture, _write(state, tmp_path / Path(file).name))
    # Of Hugging Face's three projections one is of another shape: they do not make one matrix.
    changed = f"missing: {own_key}" if "in_proj" in own_key else f"other shape: {own_key} is ("
    assert changed in message
    assert "do not fit" in message


class _TouchOnLoad:
    """A pickle of this creates a file when an ordinary unpickler reads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", slow_but(["Hugging Face ViT, bin"], PICKLES))
def test_code_in_a_pickle_is_not_run(name: str, written_by: Callable[[str], Path], tmp_path: Path) -> None:
    library, architecture, file, *_ = FILES[name]
    content = torch.load(written_by(library) / file, weights_only=True)
    content["payload"] = _TouchOnLoad(tmp_path / "marker")
    path = tmp_path / Path(file).name
    torch.save(content, path)
    assert "none of it was run" in _refusal(architecture, path)
    assert not (tmp_path / "marker").exists()


@pytest.mark.slow
def test_code_in_an_array_is_not_run(written_by: Callable[[str], Path], tmp_path: Path) -> None:
    _, architecture, file, *_ = FILES["google-research"]
    state = _read(written_by("timm") / file) | {"payload": np.array([_TouchOnLoad(tmp_path / "marker")], dtype=object)}
    assert "none of it was run" in _refusal(architecture, _write(state, tmp_path / file))
    assert not (tmp_path / "marker").exists()


def test_missing_shard_is_named(written_by: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    shutil.copytree(written_by("transformers") / "vit_sharded", folder)
    next(folder.glob("model-00002-of-*.safetensors")).unlink()
    message = _refusal("vit_ti_16", folder / "model.safetensors.index.json")
    assert "lists the shard model-00002-of-00005.safetensors, which is not beside it" in message


def test_shard_without_a_key_is_named(written_by: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    shutil.copytree(written_by("transformers") / "vit_sharded", folder)
    shard = folder / "model-00002-of-00005.safetensors"
    state = safetensors.torch.load_file(shard)
    lost = sorted(state)[0]
    del state[lost]
    safetensors.torch.save_file(state, shard)
    message = _refusal("vit_ti_16", folder / "model.safetensors.index.json")
    assert f"the shard model-00002-of-00005.safetensors lacks {lost}" in message
