"""Fitting a state dict to a module: every difference is told by its key, and none is tolerated."""

from __future__ import annotations

import pytest
import torch

from edgeport_models import ARCHITECTURES
from edgeport_models.weights import fit_checkpoint, num_classes_of
from edgeport_runtime.errors import WeightsError

State = dict[str, torch.Tensor]


@pytest.fixture
def state() -> State:
    torch.manual_seed(1)
    return dict(ARCHITECTURES["lenet5"].build().state_dict())


def fit(state: State, name: str = "lenet5") -> torch.nn.Module:
    module = ARCHITECTURES[name].build()
    fit_checkpoint(module, state, spec=ARCHITECTURES[name], source="given.pth")
    return module


def refusal(state: State, name: str = "lenet5") -> list[str]:
    """Lines of the refusal; the module is left as it was."""
    module = ARCHITECTURES[name].build()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        fit_checkpoint(module, state, spec=ARCHITECTURES[name], source="given.pth")
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    return str(caught.value).splitlines()


def test_values_are_copied(state: State) -> None:
    module = fit(state)
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    state["fc3.bias"].add_(1)
    assert not torch.equal(module.state_dict()["fc3.bias"], state["fc3.bias"])


def test_missing_keys_are_listed(state: State) -> None:
    del state["fc2.bias"], state["conv1.weight"]
    assert refusal(state) == [
        "weights given.pth do not fit lenet5: 2 keys missing, 0 unexpected, 0 of another shape",
        "  missing: conv1.weight (6, 1, 5, 5)",
        "  missing: fc2.bias (84,)",
    ]


def test_unexpected_keys_are_listed(state: State) -> None:
    state |= {"fc4.weight": torch.ones(10, 10), "scale": torch.ones(())}
    assert refusal(state) == [
        "weights given.pth do not fit lenet5: 0 keys missing, 2 unexpected, 0 of another shape",
        "  unexpected: fc4.weight (10, 10)",
        "  unexpected: scale ()",
    ]


def test_other_shapes_are_listed(state: State) -> None:
    state["fc3.weight"] = torch.ones(84, 10)  # as many values, so that a reshape would hide the mistake
    state["conv1.bias"] = torch.ones(())  # would broadcast
    assert refusal(state) == [
        "weights given.pth do not fit lenet5: 0 keys missing, 0 unexpected, 2 of another shape",
        "  other shape: conv1.bias is (), the model has (6,)",
        "  other shape: fc3.weight is (84, 10), the model has (10, 84)",
    ]


def test_all_differences_are_told_at_once(state: State) -> None:
    state["fc4.bias"] = state.pop("fc3.bias")
    state["fc1.bias"] = torch.ones(7)
    assert refusal(state) == [
        "weights given.pth do not fit lenet5: 1 keys missing, 1 unexpected, 1 of another shape",
        "  other shape: fc1.bias is (7,), the model has (120,)",
        "  missing: fc3.bias (10,)",
        "  unexpected: fc4.bias (10,)",
    ]


@pytest.mark.parametrize(
    ("given", "wanted", "hint"),
    [
        ("resnet56", "resnet20", "these keys are those of resnet56, plain56"),
        ("resnet18", "resnet50", "these keys are those of resnet18"),
        ("vit_ti_16", "resnet18", "these keys are those of vit_ti_16"),
    ],
)
def test_weights_of_another_architecture(given: str, wanted: str, hint: str) -> None:
    state = ARCHITECTURES[given].build().state_dict()
    first, *rest = refusal(dict(state), wanted)
    own = {key for key in ARCHITECTURES[wanted].build().state_dict() if not key.endswith("num_batches_tracked")}
    others = {key for key in state if not key.endswith("num_batches_tracked")}
    assert f"do not fit {wanted}: {len(own - others)} keys missing, {len(others - own)} unexpected, " in first
    assert first.endswith(f"; {hint}")
    num_all = len(own - others) + len(others - own) + int(first.split(" of another shape")[0].split()[-1])
    assert len(rest) == 21
    assert rest[-1] == f"  and {num_all - 20} more"


def test_no_hint_where_only_the_number_of_classes_differs() -> None:
    state = dict(ARCHITECTURES["resnet20"].build(num_classes=100).state_dict())
    lines = refusal(state, "resnet20")
    assert "these keys are those of" not in lines[0]
    assert lines[1:] == [
        "  other shape: linear.weight is (100, 64), the model has (10, 64)",
        "  other shape: linear.bias is (100,), the model has (10,)",
    ]


def test_no_hint_where_no_architecture_has_the_keys() -> None:
    lines = refusal({"weight": torch.ones(2)})
    assert lines[0] == "weights given.pth do not fit lenet5: 10 keys missing, 1 unexpected, 0 of another shape"


def test_counters_of_batches_are_ignored() -> None:
    with_counters = dict(ARCHITECTURES["resnet20"].build().state_dict())
    counters = [key for key in with_counters if key.endswith("num_batches_tracked")]
    assert len(counters) == 19
    for key in counters:
        with_counters[key] = torch.tensor(500)
    without = {key: value for key, value in with_counters.items() if key not in counters}
    for state in (with_counters, without, without | {"other.num_batches_tracked": torch.tensor(1)}):
        loaded = fit(state, "resnet20").state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in without.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_named(state: State, value: float) -> None:
    state["conv2.weight"][3, 2, 1, 0] = value
    state["fc2.bias"][5] = value
    assert refusal(state) == ["weights given.pth hold NaN or infinite values in: conv2.weight, fc2.bias"]


def test_values_beyond_float32_are_named(state: State) -> None:
    state["fc1.bias"] = torch.full((120,), 1e300, dtype=torch.float64)
    assert refusal(state) == ["weights given.pth hold NaN or infinite values in: fc1.bias"]


def test_running_statistics_that_are_not_finite_are_named() -> None:
    state = dict(ARCHITECTURES["resnet20"].build().state_dict())
    state["bn1.running_var"] = torch.full((16,), float("inf"))
    assert refusal(state, "resnet20") == ["weights given.pth hold NaN or infinite values in: bn1.running_var"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(state: State, dtype: torch.dtype) -> None:
    module = fit({key: value.to(dtype) for key, value in state.items()})
    for key, value in module.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[key].to(dtype).to(torch.float32))


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_values_that_are_not_floating_point_are_named(state: State, dtype: torch.dtype) -> None:
    state["fc1.weight"] = state["fc1.weight"].to(dtype)
    name = str(dtype).removeprefix("torch.")
    assert refusal(state)[0].startswith(f"weights given.pth are not floating-point numbers in: fc1.weight ({name}); ")


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_number_of_classes_is_that_of_the_head(name: str) -> None:
    spec = ARCHITECTURES[name]
    with torch.device("meta"):
        assert num_classes_of(spec.build(num_classes=37).state_dict(), spec) == 37


@pytest.mark.parametrize("state", [{}, {"fc.weight": torch.ones(3, 84)}, {"fc3.weight": torch.ones(3)}])
def test_number_of_classes_is_unknown_without_a_head(state: State) -> None:
    assert num_classes_of(state, ARCHITECTURES["lenet5"]) is None


def test_heads_for_training_only_are_left_out_and_told() -> None:
    spec = ARCHITECTURES["googlenet"]
    module = spec.build()
    auxiliary = {"aux1.fc2.weight": torch.zeros(2, 2), "aux2.conv.bn.num_batches_tracked": torch.zeros(())}
    dropped = fit_checkpoint(module, module.state_dict() | auxiliary, spec=spec, source="given.pth")
    assert dropped == list(auxiliary)
    assert fit_checkpoint(module, module.state_dict(), spec=spec, source="given.pth") == []
    lines = refusal(ARCHITECTURES["resnet18"].build().state_dict() | auxiliary, "resnet18")
    assert lines[1:] == ["  unexpected: aux1.fc2.weight (2, 2)"]
