"""torchvision's Python half without its compiled one, which does not fit the CPU build of torch.

Importing torchvision registers rules for operators that the compiled half defines. Declared here beforehand, they are
found; networks call none of them.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import torch

_spec = importlib.util.find_spec("torchvision")
if _spec is None or _spec.origin is None:
    raise ImportError("torchvision is not on PYTHONPATH")
_rules = (Path(_spec.origin).parent / "_meta_registrations.py").read_text()
_operators = torch.library.Library("torchvision", "DEF")
for _name in sorted(set(re.findall(r'torchvision::(\w+)|register_meta\("(\w+)"\)', _rules))):
    _operators.define(f"{''.join(_name)}(Tensor x) -> Tensor")

import torchvision  # noqa: E402

__all__ = ["torchvision"]
