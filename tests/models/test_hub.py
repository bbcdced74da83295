"""hf:// through huggingface_hub, against a stand-in for the hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save

from edgeport_models import ARCHITECTURES
from hub_server import COMMIT, Hub, environment, serve
from speed import slow_but

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT = """
import json, sys
from edgeport_models.weights import read_checkpoint
from edgeport_runtime.errors import WeightsError
try:
    checkpoint = read_checkpoint(sys.argv[1])
except WeightsError as error:
    sys.exit(f"error: {error}")
source = checkpoint.source
keys = sorted(checkpoint.converted.state)
print(json.dumps([source.file.name, source.origin, source.config, source.processor, keys]))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = ARCHITECTURES["lenet5"].build().state_dict()
    with serve(Hub({"model.safetensors": save(state), "config.json": b'{"id2label": {"0": "zero"}}'})) as served:
        yield served


def _read(address: str, hub: Hub, cache: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, address],
        env=environment(hub, cache, PYTHONPATH=os.pathsep.join(sys.path), **variables),
        capture_output=True,
        text=True,
        check=False,
    )


def _refusal(address: str, hub: Hub, cache: Path, **variables: str) -> str:
    done = _read(address, hub, cache, **variables)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"error: weights {address}")
    return done.stderr


def test_repository_is_read_and_then_taken_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    hub.files["preprocessor_config.json"] = b'{"do_rescale": true}'
    hub.files["modeling.py"] = hub.files["pytorch_model.bin"] = b"not asked for"
    done = _read("hf://tester/lenet", hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    file, origin, config, processor, keys = json.loads(done.stdout)
    assert file == "model.safetensors"
    assert origin == {"repository": "tester/lenet", "commit": COMMIT}
    assert config == {"id2label": {"0": "zero"}}
    assert processor == {"do_rescale": True}
    assert keys == sorted(ARCHITECTURES["lenet5"].build().state_dict())
    fetched = {path.rsplit("/", 1)[1] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"config.json", "preprocessor_config.json", "model.safetensors"}
    hub.asked.clear()
    offline = _read("hf://tester/lenet", hub, tmp_path, HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stdout) == (0, done.stdout)
    assert hub.asked == []


@pytest.mark.slow
def test_revision_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    assert _read("hf://tester/lenet@v1", hub, tmp_path).returncode == 0
    assert any("/resolve/v1/" in path for path in hub.asked)
    assert "it has no revision v2" in _refusal("hf://tester/lenet@v2", hub, tmp_path)


@pytest.mark.slow
def test_shards_are_fetched(hub: Hub, tmp_path: Path) -> None:
    state = ARCHITECTURES["lenet5"].build().state_dict()
    shards = {key: f"{key.partition('.')[0]}.safetensors" for key in state}
    del hub.files["model.safetensors"]
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": shards}).encode()
    for name in set(shards.values()):
        hub.files[name] = save({key: state[key] for key, shard in shards.items() if shard == name})
    done = _read("hf://tester/lenet", hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[4] == sorted(state)
    del hub.files["fc3.safetensors"]
    assert "it lacks the shard fc3.safetensors" in _refusal("hf://tester/lenet", hub, tmp_path / "other")
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": "../../a.safetensors"}}).encode()
    done = _read("hf://tester/lenet", hub, tmp_path / "third")
    assert "not a .safetensors file in the same folder" in done.stderr


@pytest.mark.slow
def test_repositories_that_cannot_be_had(hub: Hub, tmp_path: Path) -> None:
    assert "there is no such repository, or it is private" in _refusal("hf://tester/none", hub, tmp_path)
    del hub.files["model.safetensors"]
    message = _refusal("hf://tester/lenet", hub, tmp_path)
    assert "it has none of model.safetensors, model.safetensors.index.json, pytorch_model.bin" in message
    assert "the hub cannot be reached, and its cache has none of" in _refusal(
        "hf://tester/lenet", hub, tmp_path / "empty", HF_HUB_OFFLINE="1"
    )


@pytest.mark.parametrize(
    "address",
    slow_but(["hf://a/../b"], ["hf://", "hf://lenet", "hf://a/b/c", "hf://a/b@", "hf://a/../b", "hf://a/b@x y"]),
)
def test_addresses_that_are_none(address: str, hub: Hub, tmp_path: Path) -> None:
    assert "write a repository as hf://OWNER/NAME" in _refusal(address, hub, tmp_path)
    assert hub.asked == []


@pytest.mark.slow
def test_unreachable_hub(tmp_path: Path) -> None:
    nowhere = Hub({}, endpoint="http://127.0.0.1:9")  # the port discard, where nothing listens
    message = _refusal("hf://tester/lenet", nowhere, tmp_path)
    assert "the hub cannot be reached, and its cache has none of" in message
    assert "HF_ENDPOINT" in message


def test_bin_in_a_repository_runs_no_code(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    path = tmp_path / "model.bin"
    torch.save(ARCHITECTURES["lenet5"].build(), path)
    hub.files["pytorch_model.bin"] = path.read_bytes()
    done = _read("hf://tester/lenet", hub, tmp_path)
    assert done.returncode == 1
    assert "none of it was run" in done.stderr


def test_without_huggingface_hub_it_is_said_what_to_install(hub: Hub, tmp_path: Path) -> None:
    blocked = SCRIPT.replace("import json, sys\n", "import json, sys\nsys.modules['huggingface_hub'] = None\n")
    done = subprocess.run(
        [sys.executable, "-c", blocked, "hf://tester/lenet"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "error: weights hf://tester/lenet needs huggingface_hub: pip install huggingface_hub\n"
