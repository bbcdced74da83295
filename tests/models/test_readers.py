"""The choice of a layout by the keys, what its keys do not tell, and networks that are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edgeport_models import ARCHITECTURES
from edgeport_models.attention import MultiHeadAttention
from edgeport_models.weights import load_checkpoint, read_checkpoint
from edgeport_models.weights.readers import convert
from edgeport_runtime.errors import InputError, WeightsError


def _convert(keys: list[str], config: dict[str, Any] | None = None) -> tuple[list[str], str | None]:
    converted, layout = convert({key: torch.ones(1) for key in keys}, config or {}, source="w.pth")
    return list(converted.state), layout


@pytest.mark.parametrize(
    "prefix", ["", "model.", "net.", "_orig_mod.", "model.module.", "network._orig_mod.", "module.backbone."]
)
def test_what_wraps_every_key_is_removed(prefix: str) -> None:
    keys, layout = _convert([f"{prefix}cls_token", f"{prefix}patch_embed.proj.bias", f"{prefix}norm.weight"])
    assert layout == "timm ViT"
    assert keys == ["class_token", "conv_proj.bias", "encoder.ln.weight"]


def test_a_loss_beside_the_model_is_left_out_and_told_and_other_keys_are_refused(tmp_path: Any) -> None:
    own = ARCHITECTURES["lenet5"].build().state_dict()
    path = tmp_path / "w.ckpt"
    torch.save({"state_dict": {f"model.{k}": v for k, v in own.items()} | {"loss.weight": torch.ones(10)}}, path)
    spec = ARCHITECTURES["lenet5"]
    notes = read_checkpoint(path).fill(spec.build(), spec=spec, image_size=32, add_channels=False)
    assert notes == ["left out of the weights, not the network's: loss (of a loss)"]
    torch.save({f"model.{k}": v for k, v in own.items()} | {"model.extra.weight": torch.ones(10)}, path)
    with pytest.raises(WeightsError, match=r"unexpected: extra.weight \(10,\)"):
        read_checkpoint(path).fill(spec.build(), spec=spec, image_size=32, add_channels=False)


@pytest.mark.parametrize("name", ["lenet5", "alexnet", "vgg11", "googlenet", "resnet20", "plain20"])
def test_own_layouts_are_as_they_were(name: str) -> None:
    with torch.device("meta"):
        keys = list(ARCHITECTURES[name].build().state_dict())
    assert _convert(keys)[0] == keys


def test_older_names_of_torchvisions_perceptron() -> None:
    layer = "encoder.layers.encoder_layer_0"
    keys, layout = _convert([f"{layer}.mlp.linear_1.weight", f"{layer}.mlp.linear_2.bias", f"{layer}.ln_1.bias"])
    assert layout == "torchvision ViT"
    assert keys == [f"{layer}.mlp.0.weight", f"{layer}.mlp.3.bias", f"{layer}.ln_1.bias"]


@pytest.mark.parametrize(
    ("keys", "config", "message"),
    [
        (["patch_embed.proj.weight", "reg_token"], {}, "variant of timm's ViT that EdgePort does not have .*reg_token"),
        (["patch_embed.proj.weight", "blocks.0.ls1.gamma"], {}, "blocks.0.ls1.gamma"),
        (["patch_embed.proj.weight", "head_dist.weight"], {}, "head_dist.weight"),
        (["patch_embed.proj.weight", "fc_norm.weight"], {}, "fc_norm.weight"),
        (["patch_embed.proj.weight"], {"global_pool": "avg"}, "config.json: global_pool is 'avg'"),
        (["conv1.0.weight", "layer1.0.conv1.weight"], {}, "variant of ResNet .*conv1.0.weight"),
        (["layer1.0.conv1.weight", "layer1.0.se.fc1.weight"], {}, "layer1.0.se.fc1.weight"),
        (["layer1.0.conv1.weight"], {"architecture": "resnetaa50"}, "'resnetaa50' is a variant of ResNet"),
        (["embedding/kernel", "pre_logits/kernel"], {}, "representation layer .*pre_logits/kernel"),
        (["embedding/kernel", "conv_root/kernel"], {}, "ResNet root"),
        (["vit.embeddings.patch_embeddings.projection.bias"], {"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'"),
        (["vit.embeddings.patch_embeddings.projection.bias"], {"model_type": "deit"}, "model_type is 'deit'"),
        (["vit.embeddings.patch_embeddings.projection.bias"], {"layer_norm_eps": "x"}, "layer_norm_eps is 'x'"),
        (["vit.embeddings.patch_embeddings.projection.bias"], {"num_attention_heads": 0}, "num_attention_heads is 0"),
        (
            ["resnet.embedder.embedder.convolution.weight"],
            {"downsample_in_bottleneck": True},
            "downsample_in_bottleneck is True; EdgePort's network has False only",
        ),
        (["resnet.embedder.embedder.convolution.weight"], {"downsample_in_first_stage": True}, "in_first_stage"),
    ],
)
def test_networks_that_are_not_ours_are_refused(keys: list[str], config: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=rf"weights w\.pth: .*{message}"):
        _convert(keys, config)


def _hugging_face_vit() -> dict[str, torch.Tensor]:
    """ViT-Ti/16 with the names that transformers 5 has in memory."""
    state: dict[str, torch.Tensor] = {}
    renames = {
        "class_token": "vit.embeddings.cls_token", "encoder.pos_embedding": "vit.embeddings.position_embeddings",
        "conv_proj": "vit.embeddings.patch_embeddings.projection", "encoder.ln": "vit.layernorm",
        "heads.head": "classifier", "ln_1": "layernorm_before", "ln_2": "layernorm_after", "mlp.0": "mlp.fc1",
        "mlp.3": "mlp.fc2", "self_attention.out_proj": "attention.o_proj",
        "encoder.layers.encoder_layer_": "vit.layers.",
    }  # fmt: skip
    for key, value in ARCHITECTURES["vit_ti_16"].build().state_dict().items():
        name = key
        for old, new in renames.items():
            name = name.replace(old, new)
        if "in_proj" in name:
            for part, values in zip("qkv", value.chunk(3), strict=True):
                state[name.replace("self_attention.in_proj_", f"attention.{part}_proj.")] = values
        else:
            state[name] = value
    return state


@pytest.mark.parametrize("names", ["attention.{}", "{0[0]}_proj"], ids=["transformers 4", "transformers 5"])
def test_query_key_and_value_stand_in_this_order(names: str) -> None:
    parts = {part: torch.randn(4, 4) for part in ("value", "key", "query")}
    state = {f"vit.layers.0.attention.{names.format(part)}.weight": values for part, values in parts.items()}
    converted, _ = convert(state, {}, source="w.pth")
    joined = converted.state["encoder.layers.encoder_layer_0.self_attention.in_proj_weight"]
    assert torch.equal(joined, torch.cat([parts["query"], parts["key"], parts["value"]]))


def test_epsilon_and_heads_of_the_config_are_the_modules(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit", "layer_norm_eps": 0.001, "num_attention_heads": 4}')
    torch.save(_hugging_face_vit(), tmp_path / "w.bin")
    spec = ARCHITECTURES["vit_ti_16"]
    module = spec.build()
    assert read_checkpoint(tmp_path / "w.bin").fill(module, spec=spec, image_size=224, add_channels=False) == []
    norms = [child for child in module.modules() if isinstance(child, torch.nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {0.001}
    assert len(norms) == 25
    assert {child.num_heads for child in module.modules() if isinstance(child, MultiHeadAttention)} == {4}


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text('{"num_attention_heads": 5}')
    torch.save(_hugging_face_vit(), tmp_path / "w.bin")
    spec = ARCHITECTURES["vit_ti_16"]
    with pytest.raises(InputError, match="width 192 is not a multiple of the checkpoint's 5 heads"):
        read_checkpoint(tmp_path / "w.bin").fill(spec.build(), spec=spec, image_size=224, add_channels=False)


def test_average_is_taken_before_the_last_weights(tmp_path: Any) -> None:
    last, average = ({"conv1.weight": torch.full((1,), value)} for value in (1.0, 2.0))
    averaged = {"n_averaged": torch.tensor(7)} | {f"module.{key}": value for key, value in average.items()}
    torch.save({"model": last, "model_ema": averaged, "epoch": 3}, tmp_path / "w.pth")
    assert load_checkpoint(tmp_path / "w.pth") == average


def test_wrappers_within_keys_come_off() -> None:
    """DataParallel around the features alone, as PyTorch's ImageNet example does for AlexNet and VGG."""
    with torch.device("meta"):
        keys = list(ARCHITECTURES["vgg11"].build().state_dict())
    assert _convert([key.replace("features.", "features.module.") for key in keys])[0] == keys
