"""What a store says of itself to who finds it: five lines in its README.md (no torch needed)."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lthbench.tasks.atomic import write_atomically

README = "README.md"
_EXPLAINED = """\
Results of lthbench, one folder per task: `tasks/KK/KEY`, where KEY is the hash of its specification, `task.json`.
There, `result.json` has numbers and digests, `weights*.safetensors` and `mask.safetensors` the networks.
To read: `lthbench results SUITE --store .`; in Python `lthbench.load_ticket(lthbench.load_suite(SUITE, "."), ...)`.
For plain torch: `lthbench ticket export SUITE`. `tickets/` has masks from elsewhere, `reports/` pages to look at.
To delete: `lthbench gc SUITE... --store .` removes what no named suite needs, or delete this whole folder.
"""


def explain(root: Path) -> None:
    """Write the file unless there is one; what only explains is no reason to fail."""
    if not (root / README).exists():
        with contextlib.suppress(OSError):
            write_atomically(root / README, _EXPLAINED.encode())
