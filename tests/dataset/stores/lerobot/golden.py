"""LeRobot datasets that the published package wrote, and what it read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[3] / "golden/lerobot"
EXPECTED = {"v21": "v21", "v30": "v30", "v30_from_v21": "v21", "v30_image": "v30_image"}
"""By data set, the one whose expected values hold."""


def expected(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{EXPECTED[name]}_expected.json").read_text())


def golden_copy(name: str, folder: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(GOLDEN / name, folder / name))
