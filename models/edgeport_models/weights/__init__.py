"""Checkpoints: reads them without running code from them, and fits them to a module."""

from edgeport_models.weights.checkpoint import load_checkpoint, open_checkpoint
from edgeport_models.weights.fit import check_numbers, fit_checkpoint, fit_own, num_classes_of
from edgeport_models.weights.load import Checkpoint, read_checkpoint
from edgeport_models.weights.random import init_random
from edgeport_models.weights.source import Source, find_weights

__all__ = [
    "Checkpoint",
    "Source",
    "check_numbers",
    "find_weights",
    "fit_checkpoint",
    "fit_own",
    "init_random",
    "load_checkpoint",
    "num_classes_of",
    "open_checkpoint",
    "read_checkpoint",
]
