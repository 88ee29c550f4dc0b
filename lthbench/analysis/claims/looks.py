"""Which verdicts were seen, when, and with how many replicates: looking again after adding replicates raises the error
rate.

A store keeps them in `looks/`, a file for each time that verdicts are printed. A look is identified by a task that its
numbers came from, whatever the suite is called by then; verdicts on the same planned replicates are one look, however
often they are printed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from pydantic import BaseModel, ConfigDict

from lthbench.analysis.claims.verdict import SILENT, Verdict
from lthbench.documents import DocumentError, read_document
from lthbench.tasks.atomic import write_json
from lthbench.tasks.store import MARKER, Store, StoreError, unusable

FOLDER = "looks"


class Look(BaseModel):
    """One verdict on a pair, as it was seen.

    Attributes:
        key: a task that its numbers came from.
        planned, n: replicates planned and done.
        alpha: the level at which it was decided.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    claim: str
    pair: str
    key: str
    planned: int
    n: int
    alpha: float
    outcome: str
    finding: str


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seen: str
    looks: list[Look]


def read_looks(store: Store) -> list[Look]:
    """All looks that a store has.

    Raises:
        StoreError: one of the files is malformed, or cannot be read.
    """
    found: list[Look] = []
    try:
        for path in sorted((store.root / FOLDER).glob("*.json")):
            try:
                found += read_document(path, _Record).looks
            except DocumentError as error:
                raise StoreError(f"{error}: it is not a record of verdicts; delete it") from error
    except OSError as error:
        raise unusable(store.root, error) from error
    return found


def record_looks(store: Store, verdicts: Iterable[Verdict], alpha: float) -> None:
    """Record that verdicts were shown; a store that does not exist yet is not created.

    Raises:
        StoreError: the store cannot be written.
    """
    looks = [
        Look(
            claim=v.claim, pair=v.pair, key=v.keys[0], planned=v.planned, n=v.n, alpha=alpha, outcome=v.outcome,
            finding=v.finding,
        )
        for v in verdicts
        if v.pair is not None and v.outcome not in SILENT and v.keys
    ]  # fmt: skip
    if not looks or not (store.root / MARKER).exists():
        return
    content: list[dict[str, Any]] = [look.model_dump(mode="json") for look in looks]
    path = store.root / FOLDER / f"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}.json"
    try:
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_json(path, {"seen": datetime.now(timezone.utc).isoformat(timespec="seconds"), "looks": content})
    except OSError as error:
        raise unusable(store.root, error) from error


def looked_before(verdict: Verdict, looks: Sequence[Look]) -> dict[int, float]:
    """How many replicates were planned each time that the same numbers were seen before, and the level of each
    decision."""
    keys = set(verdict.keys)
    found: dict[int, float] = {}
    for look in looks:
        if look.claim == verdict.claim and look.planned != verdict.planned and look.key in keys:
            found[look.planned] = max(look.alpha, found.get(look.planned, 0.0))
    return dict(sorted(found.items()))
