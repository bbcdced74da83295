"""What an export tells of itself while it runs."""

from __future__ import annotations

__all__ = ["Progress"]


class Progress:
    """Told of each stage and of how far it is; this one is silent."""

    def stage(self, name: str) -> None:
        """A stage begins."""

    def count(self, done: int, total: int) -> None:
        """So much of the running stage is done."""
