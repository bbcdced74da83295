"""The networks that EdgePort exports, and readers for their checkpoints."""

from edgeport_models.spec import ModelSpec
from edgeport_models.zoo import ALIASES, ARCHITECTURES

__all__ = ["ALIASES", "ARCHITECTURES", "ModelSpec"]
