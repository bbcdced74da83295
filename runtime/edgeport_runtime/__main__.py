"""``python -m edgeport_runtime``: the command ``run-model``."""

from __future__ import annotations

import sys

from edgeport_runtime.commands.cli import main

sys.exit(main())
