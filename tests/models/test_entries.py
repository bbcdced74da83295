"""Which entry of a checkpoint holds the weights: names, nesting, the convention where there are two, and the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from edgeport_models.weights import open_checkpoint
from edgeport_models.weights.entries import Chosen, choose
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path


def _state(value: float) -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.full((2, 2), value), "conv.bias": torch.full((2,), value)}


def _choose(content: Any, key: str | None = None) -> tuple[float, str | None]:
    chosen: Chosen = choose(content, key=key, source="w.pth")
    assert (chosen.note is None) == (key is not None or chosen.key is None)
    return chosen.state["conv.bias"][0].item(), chosen.key


OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize("name", ["state_dict", "model", "model_state_dict", "net", "network", "encoder", "generator"])
@pytest.mark.parametrize("around", [(), ("checkpoint",), ("state", "model")])
def test_the_only_weights_are_taken_whatever_their_name(name: str, around: tuple[str, ...]) -> None:
    content: dict[str, Any] = {name: _state(1), "optimizer": OPTIMIZER, "optimizer_state_dict": {"a": torch.ones(2)}}
    for outer in around:
        content = {outer: content, "epoch": torch.tensor(3), "mean": torch.ones(3), "rng_state": torch.ones(9)}
    assert _choose(content) == (1, None)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("model", "model_ema"), "model_ema"),  # torchvision
        (("state_dict", "state_dict_ema"), "state_dict_ema"),  # timm
        (("state_dict", "ema_state_dict"), "state_dict"),  # mmengine has swapped them, so that this is the average
        (("state_dict", "current_model_state"), "state_dict"),  # Lightning, likewise
        (("model", "ema"), "model"),
        (("net", "net_ema"), "net"),
        (("net", "model_state_dict"), "model_state_dict"),
    ],
)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_two_the_conventional_is_taken_and_told(names: tuple[str, str], taken: str, is_reversed: bool) -> None:
    content = {name: _state(i) for i, name in enumerate(names)}
    if is_reversed:
        content = dict(reversed(content.items()))
    assert _choose(content) == (names.index(taken), taken)
    note = choose(content, key=None, source="w.pth").note
    other = names[1 - names.index(taken)]
    assert note == f"weights taken from {taken}, not from {other} (--weights-key chooses)"
    for i, name in enumerate(names):
        assert _choose(content, name) == (i, name)


def test_averages_within_an_entry_are_chosen_among_by_the_same_convention() -> None:
    content = {"checkpoint": {"model": _state(1), "model_ema": {"module": _state(2)}}}
    assert _choose(content) == (2, "checkpoint.model_ema.module")
    assert _choose(content, "checkpoint.model") == (1, "checkpoint.model")


def test_what_stands_before_keys_can_be_chosen() -> None:
    state = {f"{name}.{key}": v for i, name in enumerate(("student", "teacher")) for key, v in _state(i).items()}
    assert _choose(state, "teacher") == (1, "teacher")
    assert _choose({"state_dict": state}, "state_dict.teacher") == (1, "state_dict.teacher")


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        ({"left": _state(1), "right": _state(2)}, None, "holds weights under left, right; choose with --weights-key"),
        (
            {"model": _state(1), "model_ema": _state(2)},
            "ema",
            "has nothing under --weights-key ema; it holds weights under model, model_ema",
        ),
        (_state(1), "model", "has nothing under --weights-key model; it holds weights at its top level; omit "),
        ({"model": 3, "epoch": torch.tensor(1)}, None, "holds no state dict; save model.state_dict()"),
        ({"model": {"a": torch.ones(2), "b": 3}}, None, r"holds entries that are not plain tensors \(b\)"),
    ],
)
def test_what_cannot_be_chosen_is_refused(content: Any, key: str | None, message: str) -> None:
    with pytest.raises(WeightsError, match=f"^weights w.pth {message}"):
        choose(content, key=key, source="w.pth")


@pytest.mark.parametrize("name", ["model_best.pth.tar", "last.tar", "LAST.PTH.TAR"])
def test_the_suffix_of_the_imagenet_example(name: str, tmp_path: Path) -> None:
    torch.save(
        {"epoch": 1, "arch": "resnet18", "state_dict": _state(3), "best_acc1": torch.tensor(9.0)}, tmp_path / name
    )
    assert open_checkpoint(tmp_path / name).state["conv.bias"][0] == 3
