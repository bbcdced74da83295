"""A sample of what tools/export_libraries.py runs: networks of torchvision, timm and transformers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from export_libraries import EXPORTED, SECONDS, run

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

SAMPLE = [
    *(f"torchvision:{name}" for name in ("squeezenet1_1", "mnasnet0_5", "shufflenet_v2_x0_5", "mobilenet_v3_small")),
    *(f"timm:{name}" for name in ("levit_128s", "mobilevit_xxs", "repghostnet_050", "starnet_s050", "mambaout_femto")),
    *(f"timm:{name}" for name in ("efficientvit_m0", "convnext_zepto_rms", "edgenext_xx_small", "pit_ti_224")),
    *(f"timm:{name}" for name in ("xcit_nano_12_p8_224", "nest_tiny_jx")),
    *(f"hf:{name}ForImageClassification" for name in ("ViT", "Swinv2", "MobileViT", "ConvNextV2", "TimmWrapper")),
]


@pytest.mark.parametrize("reference", SAMPLE)
def test_it_is_exported_with_the_modules_decisions(
    reference: str, peer: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [str(Path(__file__).parent), *(str(peer(name)) for name in ("timm", "torchvision", "transformers"))]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*folders, *filter(None, sys.path)]))
    result = run(reference, SECONDS)
    assert result["status"] == EXPORTED, result.get("reason")
