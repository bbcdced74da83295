"""LeNet-5 for each task, whose decisions differ between the images that go with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from edgeport_models import ARCHITECTURES
from edgeport_models.weights import init_random
from edgeport_runtime.pixels.preprocess import preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Task

TASKS: tuple[Task, ...] = ("multiclass", "binary", "multilabel")
NUM_OUTPUTS = {"multiclass": 4, "binary": 1, "multilabel": 4}


def make_module(task: Task) -> torch.nn.Module:
    """Its logits have mean 0 over the images below, so that decisions differ."""
    torch.manual_seed(0)
    spec = ARCHITECTURES["lenet5"]
    module = spec.build(num_classes=NUM_OUTPUTS[task]).eval()
    init_random(module, head="fc3", input_shape=spec.input_shape, seed=0)
    with torch.no_grad():
        module.get_submodule("fc3").bias.sub_(module(torch.from_numpy(make_inputs())).mean(dim=0))
    return module


def make_images() -> list[NDArray[np.uint8]]:
    """Blocks of grey, which differ in more than noise."""
    blocks = np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8)
    return [np.kron(block, np.ones((8, 8), np.uint8)) for block in blocks]


def make_inputs() -> NDArray[np.float32]:
    return np.stack([preprocess(image, ARCHITECTURES["lenet5"].preprocess) for image in make_images()])
