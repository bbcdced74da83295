"""Export a module of your own from Python, and compare the bundle with it."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
config = ExportConfig(output=Path("own"), image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3, quantize=(), force=True)
result = export(net, config)
x = np.random.default_rng(0).standard_normal((5, 3, 32, 32), dtype=np.float32)
with Classifier.load(result.path) as classifier, torch.no_grad():
    difference = np.abs(classifier.logits(x) - net.eval()(torch.from_numpy(x)).numpy()).max()
print(f"largest difference from PyTorch: {difference:.1e}")
assert difference < 1e-5
