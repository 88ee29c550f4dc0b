"""TensorBoard event files: one per training, with its curves and parameters, and one per cell, with its levels."""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams, scalar

from lthbench.analysis.export.runs import TrackedRun, tracked_runs
from lthbench.analysis.table import results_table
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store
from lthbench.tasks.tensor_files import write_atomically

LEVELS = "levels"


def export_tensorboard(plan: Plan, store: Store, folder: Path) -> int:
    """Write event files for the finished trainings of a plan, and return how many were new.

    A training is FOLDER/PAIR/ARM/REPLICATE/NAME, written once. FOLDER/PAIR/ARM/REPLICATE/levels has every number that
    has a level, with the level as its step; it is written anew each time. The same results give the same bytes.
    """
    new = 0
    for run in tracked_runs(plan, store):
        path = folder.joinpath(*run.folder, run.name, f"events.out.tfevents.{run.finished:.0f}.{run.key}")
        if not path.exists():
            _write(path, _events_of(run))
            new += 1
    cells: dict[tuple[str, str, int], dict[str, list[tuple[int, float]]]] = {}
    last = 0.0
    for row in results_table(plan, store):
        if row.level is not None:
            step = f", step {row.step}" if row.step else ""
            tags = cells.setdefault((row.pair, row.arm, row.replicate), {})
            tags.setdefault(f"{row.experiment}/{row.variant}{step}/{row.metric}", []).append((row.level, row.value))
            last = max(last, _finished(store.result(row.key)))
    for (pair, arm, replicate), tags in cells.items():
        events = [
            (Event(wall_time=last, step=level), scalar(tag, value))
            for tag, points in tags.items()
            for level, value in sorted(dict(points).items())
        ]
        path = folder / pair / arm / f"replicate-{replicate}" / LEVELS / "events.out.tfevents.0.levels"
        _write(path, _with_version(last, events))
    return new


def _events_of(run: TrackedRun) -> list[Event]:
    summaries: list[tuple[Event, Any]] = [
        (Event(wall_time=run.finished), summary)
        for summary in hparams(dict(run.parameters), {f"final/{name}": value for name, value in run.metrics.items()})
    ]
    for name, points in run.curves.items():
        summaries += [(Event(wall_time=run.finished, step=step), scalar(name, value)) for step, value in points]
    summaries += [
        (Event(wall_time=run.finished), scalar(f"final/{name}", value)) for name, value in run.metrics.items()
    ]
    return _with_version(run.finished, summaries)


def _with_version(when: float, pairs: Iterable[tuple[Event, Any]]) -> list[Event]:
    events = [Event(wall_time=when, file_version="brain.Event:2")]
    for event, summary in pairs:
        event.summary.CopyFrom(summary)
        events.append(event)
    return events


def _write(path: Path, events: Iterable[Event]) -> None:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString(deterministic=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def _finished(result: dict[str, Any] | None) -> float:
    return 0.0 if result is None else datetime.fromisoformat(result["finished"]).timestamp()
