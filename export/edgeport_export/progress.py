"""How an export reports its progress."""

from __future__ import annotations

__all__ = ["Progress"]


class Progress:
    """Is told of each stage and of how far it has come; this one is silent."""

    def stage(self, name: str) -> None:
        """A stage begins."""

    def count(self, done: int, total: int) -> None:
        """This much of the running stage is done."""
