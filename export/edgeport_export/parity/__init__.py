"""Runs the stages of an export and compares them with PyTorch. Nothing here changes a model."""
