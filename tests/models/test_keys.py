"""Keys of own modules: wrappers come off where that makes them fit, and only there; what training had is left out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeport_models import ARCHITECTURES
from edgeport_models.weights.fit import fit_own
from edgeport_models.weights.keys import is_average, is_of_training, match_keys, without_training
from edgeport_runtime.errors import WeightsError

State = dict[str, torch.Tensor]


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def _fit(module: nn.Module, state: State) -> str | None:
    return fit_own(module, state, name="own.py:make", source="w.pth")


def _under(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    "prefix",
    ["", "_orig_mod.", "module.", "model.", "backbone.", "module._orig_mod.", "model.backbone.module.", "net.", "cnn."],
)
def test_a_prefix_of_every_key_comes_off(prefix: str) -> None:
    module, given = _net(), {key: torch.rand_like(v.float()) for key, v in _net().state_dict().items() if v.ndim}
    assert _fit(module, _under(prefix, given)) is None
    assert all(torch.equal(module.state_dict()[key], value) for key, value in given.items())


@pytest.mark.parametrize("name", ["model", "module", "_orig_mod", "criterion", "ema"])
def test_a_network_that_has_such_a_part_keeps_it(name: str) -> None:
    for prefix in ("", "model.", "module."):
        module = nn.Module()
        module.add_module(name, nn.Linear(2, 2))
        module.add_module("head", nn.Linear(2, 2))
        given = {key: torch.rand_like(value) for key, value in module.state_dict().items()}
        assert _fit(module, _under(prefix, given)) is None
        assert all(torch.equal(module.state_dict()[key], value) for key, value in given.items())


def test_weights_that_are_nan_are_named() -> None:
    given = {key: torch.rand_like(v) for key, v in nn.Linear(2, 2).state_dict().items()}
    with pytest.raises(WeightsError, match=r"weights w\.pth hold NaN in: bias; give those from before"):
        _fit(nn.Linear(2, 2), given | {"bias": torch.tensor([1.0, torch.nan])})


def test_what_fits_as_it_is_is_preferred() -> None:
    """A student with the keys of the teacher that stands beside it under a prefix."""
    module = nn.Linear(2, 2)
    own, other = ({key: torch.rand_like(v) for key, v in module.state_dict().items()} for _ in range(2))
    with pytest.raises(
        WeightsError, match=r"2 unexpected, .*\n  unexpected: model.weight .*\n  unexpected: model.bias"
    ):
        _fit(nn.Linear(2, 2), own | _under("model.", other))
    matched = match_keys(own | _under("model.", other), list(own), source="w.pth")
    assert all(torch.equal(matched.state[key], value) for key, value in own.items())


def test_wrappers_within_keys_come_off() -> None:
    """DataParallel around the features alone, as PyTorch's ImageNet example does; torch.compile around a part."""
    module = nn.ModuleDict({"features": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    given = {key: torch.rand_like(value) for key, value in module.state_dict().items()}
    for wrapper in ("module", "_orig_mod", "_fsdp_wrapped_module._orig_mod"):
        wrapped = {key.replace("features.", f"features.{wrapper}."): value for key, value in given.items()}
        assert _fit(module, _under("model.", wrapped)) is None
        assert all(torch.equal(module.state_dict()[key], value) for key, value in given.items())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("criterion", "of a loss"),
        ("loss_fn", "of a loss"),
        ("train_loss", "of a loss"),
        ("optimizer", "of an optimizer"),
        ("val_metrics", "of a metric"),
        ("model_ema", "of averaged weights, which --weights-key takes"),
        ("ema.module", "of averaged weights, which --weights-key takes"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_what_training_had_is_left_out_and_told(name: str, kind: str, prefix: str) -> None:
    module = _net()
    given = {key: torch.rand_like(v.float()) for key, v in _net().state_dict().items() if v.ndim}
    others = _under(f"{name}.", given) if "averaged" in kind else {f"{name}.weight": torch.ones(5)}
    part = name.partition(".")[0]
    assert (
        _fit(module, _under(prefix, given) | others) == f"left out of the weights, not the network's: {part} ({kind})"
    )
    assert all(torch.equal(module.state_dict()[key], value) for key, value in given.items())


def test_other_foreign_keys_are_refused_and_listed() -> None:
    given = _under("model.", dict(_net().state_dict()))
    told = r"w\.pth do not fit own\.py:make: 0 keys missing, 1 unexpected, .*\n  unexpected: projector\.bias"
    with pytest.raises(WeightsError, match=told):
        _fit(_net(), given | {"projector.bias": torch.ones(2), "criterion.weight": torch.ones(2)})


def test_weights_of_another_network_are_counted_and_the_first_listed() -> None:
    given = {f"features.{i}.weight": torch.ones(2) for i in range(100)} | {"3.weight": torch.ones(7, 4)}
    with pytest.raises(WeightsError) as caught:
        _fit(_net(), given)
    first, *lines = str(caught.value).splitlines()
    assert first.endswith("do not fit own.py:make: 7 keys missing, 100 unexpected, 1 of another shape")
    assert lines[0] == "  other shape: 3.weight is (7, 4), the model has (2, 4)"
    assert len(lines) == 21
    assert max(map(len, lines)) < 100


def test_two_networks_under_names_of_no_wrapper_are_refused() -> None:
    given = dict(_net().state_dict())
    with pytest.raises(WeightsError, match="the network several times, under student, teacher; choose with --weights-"):
        _fit(_net(), _under("student.", given) | _under("teacher.", given))


def test_numbers_of_another_kind_are_refused() -> None:
    given = dict(nn.Linear(2, 2).state_dict())
    given["weight"] = given["weight"].to(torch.int8)
    with pytest.raises(
        WeightsError, match=r"not floating-point numbers, as those of own\.py:make are, in: weight \(int8\)"
    ):
        _fit(nn.Linear(2, 2), given)


def test_hooks_of_the_module_still_see_older_keys() -> None:
    """PyTorch's weight normalization reads the keys of its predecessor by a hook."""
    old = nn.utils.weight_norm(nn.Linear(2, 2))
    new = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    assert _fit(new, dict(old.state_dict())) is None
    assert torch.equal(new.weight, old.weight)


def test_no_network_of_ours_has_a_part_that_would_be_left_out() -> None:
    with torch.device("meta"):
        for name in ("lenet5", "alexnet", "vgg11", "googlenet", "googlenet_2014", "resnet18", "plain20", "vit_digits"):
            assert without_training(ARCHITECTURES[name].build().state_dict()).note is None, name


@pytest.mark.parametrize(
    "name", ["gloss", "lossless", "schema", "semantic", "metric_learning", "account", "head", "optical", "emaciated"]
)
def test_names_that_only_look_alike_stay(name: str) -> None:
    assert not is_average(name)
    assert not is_of_training(name)
