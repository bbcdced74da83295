"""What scripts save beside the weights is read as nothing; whatever could act is refused, or is never called."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import fractions
import os
import pickle
import types
from pathlib import Path, PosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from edgeport_models.weights import load_checkpoint
from edgeport_models.weights.inert import SAFE_GLOBALS, Inert
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable

STATE = {"0.weight": torch.arange(6.0), "0.bias": torch.ones(2)}


class Call:
    """A pickle of this calls the function when it is read, and gives what comes of it the state."""

    def __init__(self, function: Callable[..., object], *args: object, state: object = None) -> None:
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def _defaultdict(factory: Any, content: dict[Any, Any]) -> collections.defaultdict[Any, Any]:
    return collections.defaultdict(factory, content)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "beside",
    [
        np.float64(91.7),
        np.int64(3),
        np.bool_(True),
        np.arange(5, dtype=np.float32),
        np.array(["cat", "dog"]),
        np.array([{"a": 1}], dtype=object),
        np.dtype("float32"),
        PosixPath("/data/run"),
        PureWindowsPath("C:/run"),
        _defaultdict(list, {"loss": [0.5, 0.25]}),
        _defaultdict(int, {1: 2}),
        _defaultdict(dict, {"a": {"b": 1}}),
        collections.OrderedDict(a=1),
        collections.Counter("abba"),
        argparse.Namespace(lr=0.1, path=PosixPath("x"), sizes={1, 2}, kind=float),
        types.SimpleNamespace(lr=0.1),
        {1, 2},
        frozenset({1, 2}),
        datetime.datetime(2026, 11, 26, tzinfo=datetime.UTC),
        datetime.timedelta(seconds=3),
        decimal.Decimal("0.917"),
        fractions.Fraction(1, 3),
        collections.deque([0.5, 0.25], maxlen=8),
        torch.Size([1, 2]),
        torch.float16,
        torch.device("cuda"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_scripts_save_beside_the_weights_is_passed_over(beside: object, is_zip: bool, tmp_path: Path) -> None:
    content = {"epoch": 3, "extra": beside, "nested": [{"extra": (beside,)}], "state_dict": STATE}
    path = tmp_path / "w.pth"
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    loaded = load_checkpoint(path)
    assert list(loaded) == list(STATE)
    assert all(torch.equal(loaded[key], value) for key, value in STATE.items())


def test_weights_within_a_defaultdict_are_found(tmp_path: Path) -> None:
    torch.save(_defaultdict(dict, {"state_dict": _defaultdict(None, dict(STATE))}), tmp_path / "w.pth")
    assert list(load_checkpoint(tmp_path / "w.pth")) == list(STATE)


@pytest.mark.parametrize(
    "make",
    [
        lambda marker: Call(os.system, f"touch {marker}"),
        lambda marker: Call(eval, f"open({str(marker)!r}, 'w')"),
        lambda marker: Call(open, str(marker), "w"),
        lambda marker: Call(Path.touch, PosixPath(marker)),
        lambda marker: Call(np.save, str(marker), [1]),
        lambda marker: Call(np.ndarray.tofile, np.ones(2), str(marker)),
        lambda _: _defaultdict(os.system, {}),
        lambda marker: {PosixPath("x"): Call(exec, f"open({str(marker)!r}, 'w')")},
        lambda marker: Call(argparse.Namespace, state={"run": Call(os.mkdir, str(marker))}),
        lambda _: Call(map, print, [1]),
        lambda _: Call(type, "name", (), {}),
        lambda _: Call(__import__, "antigravity"),
    ],
)
def test_what_could_act_is_refused_and_not_run(make: Callable[[Path], object], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save({"state_dict": STATE, "payload": make(marker)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"none of it was run|is not a PyTorch checkpoint"):
        load_checkpoint(tmp_path / "w.pth")
    assert not marker.exists()


def test_known_names_are_place_holders_whatever_they_are_given(tmp_path: Path) -> None:
    """A path touches no disk, a type makes no number of 100,000 digits, numpy sees no state that a file made up."""
    scalar, reconstruct = np.float64(1).__reduce__()[0], np.ones(1).__reduce__()[0]
    dtype = Call(np.dtype, "V8", state=(3, "<", None, None, None, -(2**31), 2**31 - 1, 1 << 40))
    hostile = [
        Call(PosixPath, "/", *["x"] * 50),
        Call(list, "abc"),
        Call(int, "9" * 100_000),
        dtype,
        Call(scalar, dtype, b"payload"),
        Call(scalar, np.dtype("O"), {"any": "object"}),
        Call(reconstruct, np.ndarray, (10**9, 10**9), b"b", state=(1, (10**9,), dtype, False, b"short")),
        Call(datetime.datetime, b"\xff" * 10, state={"hour": 1}),
        Call(argparse.Namespace, state={"__class__": int, "__dict__": 1}),
    ]
    torch.save({"state_dict": STATE, "hostile": hostile}, tmp_path / "w.pth")
    assert list(load_checkpoint(tmp_path / "w.pth")) == list(STATE)
    with torch.serialization.safe_globals(list(SAFE_GLOBALS)):
        content = torch.load(tmp_path / "w.pth", weights_only=True)
    assert [type(value) for value in content["hostile"]] == [Inert] * len(hostile)
    assert [vars(value) for value in content["hostile"]] == [{}] * len(hostile)


def test_the_list_holds_during_the_reading_alone(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "path": PosixPath("x")}, tmp_path / "w.pth")
    before = set(torch.serialization.get_safe_globals())
    load_checkpoint(tmp_path / "w.pth")
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
        torch.load(tmp_path / "w.pth", weights_only=True)


def test_a_mapping_that_holds_itself_ends(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"state_dict": STATE}
    loop["again"] = loop
    wide: dict[str, Any] = {"x": 1}
    for _ in range(20):
        wide = dict.fromkeys(map(str, range(20)), wide)
    loop["wide"] = wide
    torch.save(loop, tmp_path / "w.pth")
    assert list(load_checkpoint(tmp_path / "w.pth")) == list(STATE)
