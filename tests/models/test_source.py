"""Folders, shards, and what lies beside a checkpoint: found in order of preference, and refused where damaged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from edgeport_models.weights import load_checkpoint
from edgeport_models.weights.source import find_weights
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

STATE = {"a": torch.ones(2), "b": torch.zeros(3)}


def _sharded(folder: Path, weight_map: Any) -> Path:
    for key, value in STATE.items():
        save_file({key: value}, folder / f"{key}.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return index


def test_safetensors_are_preferred_to_shards_and_those_to_bin(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    assert find_weights(tmp_path).file.name == "pytorch_model.bin"
    _sharded(tmp_path, {"a": "a.safetensors", "b": "b.safetensors"})
    assert find_weights(tmp_path).file.name == "model.safetensors.index.json"
    save_file(STATE, tmp_path / "model.safetensors")
    assert find_weights(tmp_path).file.name == "model.safetensors"
    assert find_weights(tmp_path).shards == []


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"is a folder that holds none of model.safetensors, .*pytorch_model.bin; give the file"
    ):
        find_weights(tmp_path)


def test_shards_make_one_state_dict(tmp_path: Path) -> None:
    index = _sharded(tmp_path, {"a": "a.safetensors", "b": "b.safetensors"})
    loaded = load_checkpoint(index)
    assert loaded.keys() == STATE.keys()
    assert all(torch.equal(loaded[key], value) for key, value in STATE.items())
    assert find_weights(index).shards == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize(
    "name",
    ["../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors", "a.bin", "..", "", 3, None, "a\\b.safetensors"],
)
def test_shards_stay_in_the_folder(name: Any, tmp_path: Path) -> None:
    index = _sharded(tmp_path, {"a": "a.safetensors", "b": name})
    with pytest.raises(WeightsError, match=r"weight_map of 'b' is .*, not a .safetensors file in the same folder"):
        load_checkpoint(index)


@pytest.mark.parametrize("weight_map", [{}, [], "a.safetensors", None])
def test_index_without_a_map_is_refused(weight_map: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"index.json: weight_map is not an object from keys to files"):
        load_checkpoint(_sharded(tmp_path, weight_map))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON, or is damaged"),
        (b"\xff", "is not JSON, or is damaged"),
        (b"[" * 100_000, "is not JSON, or is damaged"),
        (b"[1]", "is not a JSON object, but of type list"),
        (b" " * (16 * 2**20 + 1), "is larger than 16777216 bytes"),
    ],
    ids=["cut", "no text", "deep", "list", "large"],
)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_damaged_descriptions_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.safetensors")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"/{name} {message}"):
        find_weights(tmp_path / "weights.safetensors")
