"""What of the machine a process may use, by the files that Linux tells it with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgeport_runtime.engine.machine import available_cpus

if TYPE_CHECKING:
    from pathlib import Path

MANY = 64


@pytest.fixture(autouse=True)
def _many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MANY)), raising=False)


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V1 = "4:memory:/pod\n3:cpu,cpuacct:/pod\n2:cpuset:/\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, MANY, id="no control groups"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, MANY, id="v2, no limit"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2, id="v2"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2, id="v2, 1.5"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1, id="v2, 0.1"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, MANY, id="v2, 99"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/pod/app\n",
                "sys/fs/cgroup/pod/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/pod/app/cpu.max": "max 100000\n",
            },
            3,
            id="v2, of the group above",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/outside\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"},
            4,
            id="v2, in a container",
        ),
        pytest.param(
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n",
            },
            3,
            id="v1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
            id="v1, in a container",
        ),
        pytest.param(
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/pod/cpu.cfs_period_us": "100000\n",
            },
            MANY,
            id="v1, no limit",
        ),
        pytest.param({"proc/self/cgroup": "nonsense\n0::/\n", "sys/fs/cgroup/cpu.max": "?"}, MANY, id="unreadable"),
    ],
)
def test_limits_of_control_groups_are_honoured(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert available_cpus(_tree(tmp_path, files)) == expected


def test_affinity_is_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert available_cpus(tmp_path) == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert available_cpus(tmp_path) == 7
