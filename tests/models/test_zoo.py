"""Every architecture of the zoo: its names, size, shapes, and the sizes it refuses."""

from __future__ import annotations

import pytest
import torch

from edgeport_models import ALIASES, ARCHITECTURES, ModelSpec
from speed import slow_but

SPECS = {name: spec for name, spec in ARCHITECTURES.items() if name not in ALIASES}
NAMES = sorted(SPECS)
# Forward passes: one of each kind of network in every run.
SHAPES = slow_but(
    ("lenet5", "alexnet", "vgg11_bn", "googlenet", "resnet18", "resnet20", "plain20", "vit_ti_16", "inception_naive"),
    NAMES,
)


def output_shape(spec: ModelSpec, input_shape: tuple[int, int, int], **arguments: int) -> tuple[int, ...]:
    """Shape of the logits of two images, found on the meta device: nothing is computed."""
    with torch.device("meta"):
        return tuple(spec.build(**arguments)(torch.empty(2, *input_shape)).shape)


def test_names_that_users_rely_on_are_there() -> None:
    assert {"lenet5", "resnet18", "resnet50", "resnet20", "resnet56", "vit_ti_16", "vit_b_16"} <= set(NAMES)


@pytest.mark.parametrize("mapping", [ARCHITECTURES, ALIASES], ids=["ARCHITECTURES", "ALIASES"])
def test_mappings_are_read_only(mapping: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="does not support item assignment"):
        mapping["other"] = ARCHITECTURES["lenet5"]


@pytest.mark.parametrize(
    ("alias", "name"), [("lenet", "lenet5"), ("vgg", "vgg16"), ("resnet", "resnet50"), ("vit", "vit_b_16")]
)
def test_friendly_name_is_another_name(alias: str, name: str) -> None:
    assert ALIASES[alias] == name
    assert ARCHITECTURES[alias] is ARCHITECTURES[name]


@pytest.mark.parametrize("name", NAMES)
def test_spec_goes_by_the_name_it_is_found_under(name: str) -> None:
    assert SPECS[name].name == name


@pytest.mark.parametrize("name", NAMES)
def test_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        module = SPECS[name].build()
    assert sum(parameter.numel() for parameter in module.parameters()) == SPECS[name].num_params


@pytest.mark.parametrize("name", SHAPES)
def test_default_shapes(name: str) -> None:
    spec = SPECS[name]
    assert output_shape(spec, spec.input_shape) == (2, spec.num_classes)


@pytest.mark.parametrize("name", NAMES)
def test_default_input_shape_is_that_of_the_input_contract(name: str) -> None:
    spec = SPECS[name]
    num_channels = 1 if spec.preprocess.color == "grey" else 3
    assert spec.input_shape == (num_channels, spec.preprocess.image_size, spec.preprocess.image_size)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("num_classes", [1, 7])
def test_number_of_classes(name: str, num_classes: int) -> None:
    spec = SPECS[name]
    assert output_shape(spec, spec.input_shape, num_classes=num_classes) == (2, num_classes)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_number_of_channels(name: str, in_channels: int) -> None:
    spec = SPECS[name]
    shape = (in_channels, *spec.input_shape[1:])
    assert output_shape(spec, shape, in_channels=in_channels) == (2, spec.num_classes)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("image_size", [96, 128])
def test_image_size(name: str, image_size: int) -> None:
    spec = SPECS[name]
    if name == "vit_h_14":
        image_size += image_size % 14 and 14 - image_size % 14
    assert output_shape(spec, (spec.input_shape[0], image_size, image_size), image_size=image_size) == (
        2,
        spec.num_classes,
    )


@pytest.mark.parametrize("name", NAMES)
def test_head_is_the_last_layer_with_a_weight(name: str) -> None:
    with torch.device("meta"):
        module = SPECS[name].build()
    weights = [key for key in module.state_dict() if key.endswith(".weight")]
    assert f"{SPECS[name].head}.weight" == weights[-1]
    assert module.get_submodule(SPECS[name].head).weight.shape[0] == SPECS[name].num_classes


def smallest_size(name: str) -> int:
    exact = {
        "lenet5": 16,
        "lenet5_1998": 16,
        "alexnet": 63,
        "alexnet_2012": 67,
        "vit_b_32": 32,
        "vit_l_32": 32,
        "vit_h_14": 14,
    }
    exact |= {"inception_naive": 5, "inception_reduced": 5}
    if name in exact:
        return exact[name]
    if name.startswith("vit"):
        return 16
    return 4 if SPECS[name].preprocess.image_size == 32 else 32


@pytest.mark.parametrize("name", SHAPES)
def test_smallest_image_size(name: str) -> None:
    spec, smallest = SPECS[name], smallest_size(name)
    assert output_shape(spec, (spec.input_shape[0], smallest, smallest), image_size=smallest) == (2, spec.num_classes)
    with pytest.raises(ValueError, match=f"image size {smallest - 1} is "):
        spec.build(image_size=smallest - 1)


@pytest.mark.parametrize("name", SHAPES)
def test_an_input_that_is_not_square(name: str) -> None:
    spec, side = SPECS[name], max(64, 2 * smallest_size(name))
    side -= side % (14 if name == "vit_h_14" else 1)
    size = (side, 2 * side)
    assert output_shape(spec, (spec.input_shape[0], *size), image_size=size) == (2, spec.num_classes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("argument", ["num_classes", "in_channels", "image_size"])
@pytest.mark.parametrize("value", [0, -16])
def test_sizes_below_one_are_refused(name: str, argument: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{argument} is {value}; it must be at least 1"):
        SPECS[name].build(**{argument: value})


@pytest.mark.parametrize("field", [{"num_classes": 0}, {"num_params": 0}, {"name": ""}, {"head": ""}])
def test_incomplete_specification_is_refused(field: dict[str, object]) -> None:
    spec = SPECS["lenet5"]
    complete = {name: getattr(spec, name) for name in ModelSpec.__dataclass_fields__}
    assert ModelSpec(**complete) == spec
    with pytest.raises(ValueError, match="incomplete specification"):
        ModelSpec(**complete | field)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="it has no option pooling; its options: none"):
        SPECS["lenet5"].build(pooling="mean")
    with pytest.raises(ValueError, match="has no option pooling; its options: auxiliary"):
        SPECS["googlenet_2014"].build(pooling="mean")
    with pytest.raises(ValueError, match="option auxiliary is 'both'; choose one of False, True"):
        SPECS["googlenet_2014"].build(auxiliary="both")
