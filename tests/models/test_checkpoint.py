"""Checkpoints: every form that is read, and every file that is refused with one line that names it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch

from edgeport_models import ARCHITECTURES
from edgeport_models.weights import load_checkpoint
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIXES = (".pth", ".pt", ".th", ".bin", ".ckpt", ".pth.tar")
ALL_SUFFIXES = (*SUFFIXES, ".safetensors")


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(ARCHITECTURES["lenet5"].build().state_dict())


def save(content: Any, path: Path, *, is_zip: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    return path


def refusal(path: Path) -> str:
    """The message of the refusal, which is one line and begins with the file."""
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"weights {path}")
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"weights {path}")


def assert_same(loaded: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(loaded) == list(expected)
    for key, value in expected.items():
        assert loaded[key].dtype == value.dtype
        assert torch.equal(loaded[key], value)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PTH"])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_torch_formats(state: dict[str, torch.Tensor], tmp_path: Path, suffix: str, is_zip: bool) -> None:
    path = save(OrderedDict(state), tmp_path / f"weights{suffix}", is_zip=is_zip)
    assert_same(load_checkpoint(path), state)
    assert_same(load_checkpoint(str(path)), state)


def test_safetensors(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(state, path)
    assert_same(load_checkpoint(path), dict(sorted(state.items())))


def test_safetensors_with_the_parallel_prefix(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({f"module.{key}": value for key, value in state.items()}, path)
    assert_same(load_checkpoint(path), dict(sorted(state.items())))


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("is_wrapped", [True, False])
def test_wrapper_and_prefix_are_removed(
    state: dict[str, torch.Tensor], tmp_path: Path, is_zip: bool, prefix: str, is_wrapped: bool
) -> None:
    content: dict[str, Any] = {f"{prefix}{key}": value for key, value in state.items()}
    if is_wrapped:  # as training scripts save it, beside things that are no tensors
        content = {"epoch": 90, "arch": "lenet5", "best_prec1": 91.7, "state_dict": content}
    assert_same(load_checkpoint(save(content, tmp_path / "weights.pth", is_zip=is_zip)), state)


def test_prefix_stays_where_only_some_keys_have_it(tmp_path: Path) -> None:
    content = {"module.weight": torch.ones(2), "bias": torch.zeros(2)}
    assert_same(load_checkpoint(save(content, tmp_path / "weights.pth")), content)


def test_parameters_count_as_tensors(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    content = {key: torch.nn.Parameter(value) for key, value in state.items()}
    assert_same(load_checkpoint(save(content, tmp_path / "weights.pth")), state)


@pytest.mark.parametrize("suffix", ALL_SUFFIXES)
def test_missing_file(tmp_path: Path, suffix: str) -> None:
    assert refusal(tmp_path / f"absent{suffix}") == " does not exist; give a file"


@pytest.mark.parametrize("suffix", ALL_SUFFIXES)
def test_folder(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert refusal(folder) == " is a folder; give a file"


@pytest.mark.parametrize("suffix", ALL_SUFFIXES)
def test_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"empty{suffix}"
    path.touch()
    assert refusal(path) == " is empty (0 bytes)"


@pytest.mark.parametrize("name", ["weights.onnx", "weights", "weights.pth.bak", "weights.json"])
def test_unknown_suffix(state: dict[str, torch.Tensor], tmp_path: Path, name: str) -> None:
    path = save(state, tmp_path / name)
    assert refusal(path) == (
        ": the file name must end in .pth, .pt, .th, .bin, .ckpt, .tar, .npz, .safetensors.index.json or .safetensors, "
        f"not {path.suffix!r}"
    )


@pytest.mark.parametrize("suffix", ALL_SUFFIXES)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html>Not Found</html>\n", "or is damaged"),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 102502400\n",
            " is a Git LFS pointer, not the weights themselves; run git lfs pull",
        ),
        ("conv1.weight 0.1 0.2\n" * 100, "or is damaged"),
    ],
    ids=["web page", "git-lfs pointer", "table"],
)
def test_text_file(tmp_path: Path, suffix: str, text: str, message: str) -> None:
    path = tmp_path / f"page{suffix}"
    path.write_text(text)
    assert message in refusal(path)


def write_zip(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save(state, path)


def write_legacy(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


WRITERS = pytest.mark.parametrize(
    ("suffix", "write"),
    [(".pth", write_zip), (".th", write_legacy), (".safetensors", safetensors.torch.save_file)],
    ids=["zip", "legacy", "safetensors"],
)


@WRITERS
def test_truncated_file(tmp_path: Path, suffix: str, write: Callable[[dict[str, torch.Tensor], Path], None]) -> None:
    path = tmp_path / f"weights{suffix}"
    write({"weight": torch.arange(6.0), "bias": torch.ones(2)}, path)
    data = path.read_bytes()
    for length in {1, 7, *range(16, len(data), len(data) // 50), len(data) - 1}:
        path.write_bytes(data[:length])
        assert "or is damaged" in refusal(path), length


@WRITERS
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_altered_file_gives_tensors_or_is_refused(
    tmp_path: Path, suffix: str, write: Callable[[dict[str, torch.Tensor], Path], None]
) -> None:
    """Whatever a damaged pickle or zip makes the readers raise, users see a WeightsError."""
    path = tmp_path / f"weights{suffix}"
    write({"weight": torch.arange(6.0), "bias": torch.ones(2)}, path)
    data = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    num_refused = 0
    for _ in range(300):
        altered = bytearray(data)
        for place, value in zip(
            torch.randint(len(data), (4,), generator=generator),
            torch.randint(256, (4,), generator=generator),
            strict=True,
        ):
            altered[place] = value
        path.write_bytes(altered)
        try:
            assert all(isinstance(value, torch.Tensor) for value in load_checkpoint(path).values())
        except WeightsError:
            num_refused += 1
    assert num_refused > 0


class _TouchOnLoad:
    """A pickle of this creates a file when an ordinary unpickler reads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_code_in_a_pickle_is_not_run(tmp_path: Path, suffix: str, is_zip: bool) -> None:
    marker = tmp_path / "marker"
    content = {"weight": torch.ones(2), "payload": _TouchOnLoad(marker)}
    path = save(content, tmp_path / f"weights{suffix}", is_zip=is_zip)
    assert " holds Python objects besides tensors (getattr), or is damaged; none of it was run" in refusal(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the payload was harmless, so this test proved nothing"


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_whole_module(tmp_path: Path, is_zip: bool) -> None:
    path = save(ARCHITECTURES["lenet5"].build(), tmp_path / "module.pth", is_zip=is_zip)
    message = refusal(path)
    assert "holds Python objects besides tensors" in message
    assert "save model.state_dict() instead" in message


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:.*TorchScript archive:UserWarning")
def test_scripted_module(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
    assert "is not a PyTorch checkpoint, or is damaged" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [[torch.ones(2)], torch.ones(2), {}, {"state_dict": {}}, 3, "text", None],
    ids=["list", "tensor", "empty", "empty wrapper", "number", "text", "None"],
)
def test_no_state_dict(tmp_path: Path, content: object) -> None:
    assert refusal(save(content, tmp_path / "weights.pth")) == " holds no state dict; save model.state_dict()"


@pytest.mark.parametrize(
    "entry",
    [
        3,
        "text",
        None,
        [torch.ones(2)],
        {"weight": torch.ones(2)},
        torch.eye(2).to_sparse(),
        torch.ones(2, device="meta"),
    ],
    ids=["number", "text", "None", "list", "dict", "sparse", "meta"],
)
def test_entries_that_are_not_plain_tensors(tmp_path: Path, entry: object) -> None:
    path = save({"weight": torch.ones(2), "optimizer": entry}, tmp_path / "weights.pth")
    assert refusal(path) == " holds entries that are not plain tensors (optimizer); save model.state_dict()"
