"""``python -m edgeport_export``: the command ``export-model``."""

from __future__ import annotations

import sys

from edgeport_export.cli import main

sys.exit(main())
