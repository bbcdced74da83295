"""Golden images and the batches of the parity chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from contracts import make_contract
from edgeport_export.parity.inputs import golden_files, make_batches, reference_input
from edgeport_models import ARCHITECTURES
from edgeport_runtime import InputError
from edgeport_runtime.pixels.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_runtime.bundle.contract import Contract

SPEC = ARCHITECTURES["resnet20"].preprocess


def _contract(batch: int | None) -> Contract:
    return make_contract(num_classes=10, batch=batch, preprocess=SPEC)


@pytest.mark.parametrize(("num_images", "num_used", "num_kept"), [(1, 1, 1), (8, 8, 8), (9, 9, 8), (100, 64, 8)])
def test_golden_images_are_spread_over_the_sorted_folder(
    num_images: int, num_used: int, num_kept: int, tmp_path: Path
) -> None:
    for i in range(num_images):
        folder = tmp_path / f"class_{i % 3}"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (i, i, i)).save(folder / f"{i:03}.png")
    files = golden_files(tmp_path, SPEC, seed=0)
    kept = [file for file in files if file.name is not None]
    assert (len(files), len(kept)) == (num_used, num_kept)
    assert [file.name for file in kept] == [f"{i}.png" for i in range(num_kept)]
    assert files[:num_kept] == kept
    everything = sorted(str(path) for path in tmp_path.rglob("*.png"))
    positions = [everything.index(file.source) for file in kept]
    assert positions == sorted(positions)
    assert positions[0] == 0
    assert positions[-1] == num_images - 1
    assert len({file.source for file in files}) == num_used


def test_synthetic_images_depend_on_the_seed_alone() -> None:
    one, same, other = (golden_files(None, SPEC, seed=seed) for seed in (0, 0, 1))
    assert len(one) == 8
    assert one == same
    assert all(a.data != b.data for a, b in zip(one, other, strict=True))
    assert len({file.data for file in one}) == 8


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no image"):
        golden_files(tmp_path, SPEC, seed=0)


def test_reference_input_is_the_runtimes(shared: Callable[[str], Path]) -> None:
    path = sorted(shared("data/cats-dogs/test").rglob("*.jpg"))[0]
    for name in ("resnet18", "lenet5"):
        spec = ARCHITECTURES[name].preprocess
        np.testing.assert_array_equal(
            reference_input(path.read_bytes(), spec, source=path.name), preprocess(path, spec)
        )


@pytest.mark.parametrize("num_images", [1, 8, 20])
def test_batches_hold_every_size_and_kind(num_images: int) -> None:
    images = [np.full((3, 32, 32), i, np.float32) for i in range(num_images)]
    batches = make_batches(images, _contract(None), seed=0)
    assert {1, 2, 3, 8} <= {len(batch) for batch in batches}
    every = np.concatenate(batches)
    np.testing.assert_array_equal(every[:num_images], np.stack(images))
    black, white = (np.array([(p - m) / s for m, s in zip(SPEC.mean, SPEC.std, strict=True)]) for p in (0, 1))
    for constant in (black, white):
        # float32 against float64 arithmetic: measured 1e-7
        assert np.isclose(every, constant[:, None, None], rtol=0, atol=1e-6).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_always_full(batch: int) -> None:
    batches = make_batches([np.zeros((3, 32, 32), np.float32)] * 8, _contract(batch), seed=0)
    assert {len(b) for b in batches} == {batch}
    assert sum(map(len, batches)) >= 13
