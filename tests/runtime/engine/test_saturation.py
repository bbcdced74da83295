"""Whether products of 8 bits are exact is read from the processor's instructions, or tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeport_runtime.engine import machine, saturation
from edgeport_runtime.engine.saturation import adds_in_16_bits, has_vnni

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}


@pytest.fixture
def untold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system that does not tell its instructions, on x86."""
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr(machine.platform, "machine", lambda: "AMD64")
    saturation._probe_saturates.cache_clear()
    yield
    saturation._probe_saturates.cache_clear()


class _Engine:
    """ONNX Runtime on a processor that adds pairs of products in 16 bits: 4 pairs of at most 32,767 each."""

    made = 0

    def InferenceSession(self, model: bytes, *, providers: list[str]) -> _Engine:
        assert 0 < len(model) < 1000
        assert providers == ["CPUExecutionProvider"]
        self.made += 1
        return self

    def run(self, _names: None, inputs: dict[str, Any]) -> list[Any]:
        assert inputs["a"].dtype == np.uint8
        return [np.full((1, 16), 4 * 32767, np.int32)]


@pytest.mark.usefixtures("untold")
def test_a_product_on_this_machine_agrees_with_its_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = adds_in_16_bits()
    monkeypatch.undo()
    sets = machine.instruction_sets()
    if sets is None or not machine.is_x86():
        pytest.skip("this system does not tell its instructions")
    assert tried == (not sets & _VNNI)
    assert has_vnni() == bool(sets & _VNNI)


@pytest.mark.usefixtures("untold")
def test_a_product_that_saturates_is_seen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _Engine()
    monkeypatch.setattr(saturation, "import_onnxruntime", lambda: engine)
    assert adds_in_16_bits()
    assert not has_vnni()
    assert engine.made == 1


def test_what_the_system_tells_needs_no_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saturation, "import_onnxruntime", lambda: pytest.fail("a session was made"))
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    for flags, architecture, expected in (
        ("avx2 avx_vnni", "x86_64", False),
        ("avx2", "x86_64", True),
        ("asimd", "aarch64", False),
    ):
        monkeypatch.setattr(machine.platform, "machine", lambda architecture=architecture: architecture)
        cpuinfo.write_text(f"flags : {flags}\n")
        assert adds_in_16_bits() is expected
