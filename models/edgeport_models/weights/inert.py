"""What training scripts save beside the weights, and how it is read: as something that does nothing.

PyTorch's restricted unpickler refuses every name that it does not know. The names below are known to us; none of them
is looked up. Each stands for ``Inert``, or for a plain dictionary, so that reading a path touches no disk, reading
an array parses no bytes, and the factory of a ``defaultdict`` is never called.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SAFE_GLOBALS", "Inert"]

_ARRAYS = ("dtype", "ndarray", "core.multiarray.scalar", "core.multiarray._reconstruct")
_NAMES = (
    *(f"numpy.{name}" for name in (*_ARRAYS, "_core.multiarray.scalar", "_core.multiarray._reconstruct")),
    # Python 3.13 has moved these for a while.
    *(f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")),
    *(f"{module}.Pure{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    "argparse.Namespace",
    "types.SimpleNamespace",
    "decimal.Decimal",
    "fractions.Fraction",
    "builtins.frozenset",
    # Factories of a defaultdict, and types among the options.
    *(f"builtins.{name}" for name in ("int", "float", "bool", "str", "list", "tuple", "dict")),
)


class Inert:
    """Takes the place of an object that is not needed, and keeps nothing of it."""

    def __init__(self, *_args: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


def _plain_dict(*_factory: object) -> dict[Any, Any]:
    return {}


def _plain_list(*_content_and_length: object) -> list[Any]:
    return []


SAFE_GLOBALS: tuple[tuple[Any, str], ...] = (
    *((Inert, name) for name in _NAMES),
    # The unpickler fills dictionaries and lists of the plain kind only.
    (_plain_dict, "collections.defaultdict"),
    (_plain_list, "collections.deque"),
)
"""For ``torch.serialization.safe_globals``: what takes an object's place, and the object's name in the pickle."""
