"""Checkpoints: reading them without running code from them, and fitting them to a module."""

from edgeport_models.weights.checkpoint import load_checkpoint
from edgeport_models.weights.fit import fit_checkpoint, num_classes_of
from edgeport_models.weights.load import Checkpoint, read_checkpoint
from edgeport_models.weights.random import init_random

__all__ = ["Checkpoint", "fit_checkpoint", "init_random", "load_checkpoint", "num_classes_of", "read_checkpoint"]
