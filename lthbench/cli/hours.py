"""The hours of a plan: on this machine, which is timed for them once, and on others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from lthbench.cli.app import err, out, progress_bar
from lthbench.plain import visible
from lthbench.runner.device import DeviceError, resolve_device
from lthbench.runner.pace import in_words
from lthbench.runner.settings import RunOptions
from lthbench.suite.calibration import Calibration, CalibrationError, calibrations, save_calibration
from lthbench.suite.model_cost import torch_version
from lthbench.suite.schema import Pair
from lthbench.suite.this_machine import TimeHere, kept_here, lacks_network, recipes_without_rate

if TYPE_CHECKING:
    from lthbench.suite.cost import Cost
    from lthbench.suite.devices import Device

_LONG = 86400.0  # seconds on this machine's processor, from which on other devices are named


def calibrate(pairs: Mapping[str, Pair], options: RunOptions) -> None:
    """Time a device thoroughly on some pairs, and keep the rates."""
    import torch

    from lthbench.bench.throughput import calibrate
    from lthbench.runner.environment import make_deterministic

    chosen = torch.device(resolve_device(options.device))
    make_deterministic(options.threads)
    with progress_bar() as progress:
        line = progress.add_task("calibrating", total=len(pairs))
        for name, found in zip(pairs, calibrate(pairs.values(), chosen, options.threads), strict=True):
            path = save_calibration(found)  # after each pair, so that an interruption loses one
            progress.update(line, advance=1, description=visible(f"calibrated {name}"))
    err.print(f"the calibration is in {path}")


def rates_here(
    pairs: Mapping[str, Pair], options: RunOptions, *, measure: bool
) -> tuple[str | None, list[Calibration]]:
    """The name of this machine's device, if its rates are known, and all calibrations there are.

    Args:
        measure: whether to time it for a few seconds where rates of these pairs are not known yet.
    """
    found = calibrations(torch_version())
    kept = kept_here(found, options.device, options.threads)
    if not measure or not any(lacks_network(kept, p) or any(recipes_without_rate(kept, p)) for p in pairs.values()):
        return None if kept is None else kept.label, found
    err.print("Timing this machine for a few seconds; what is found is kept.")
    import torch

    from lthbench.bench.quick_rates import quick_rates
    from lthbench.runner.environment import device_name, make_deterministic

    try:
        device = torch.device(resolve_device(options.device))
    except DeviceError as error:
        err.print(f"this machine is not timed: {error}")
        return None, found
    make_deterministic(options.threads)
    name = device_name(device)
    kept = kept_here(found, str(device), options.threads, name)
    new = quick_rates(pairs.values(), kept, device, options.threads)
    try:
        save_calibration(new)
    except (OSError, CalibrationError) as error:
        err.print(f"what was timed cannot be kept, so the next plan times again: {error}")
    others = [one for one in found if one is not kept]
    return new.label, [kept.with_rates(new) if kept else new, *others]


def hours_facts(here: TimeHere | None, devices: list[Device]) -> dict[str, Any]:
    """What JSON says of the hours: of this machine, null where it was not timed; and where each device's are from."""
    return {
        "here": here and {**asdict(here), "in_words": _here_in_words(here), "is_measured": not here.estimated},
        "devices": {d.label: {"is_measured": d.is_measured, "source": d.source} for d in devices},
    }


def print_here(here: TimeHere, cost: list[Cost], devices: list[Device]) -> None:
    """Print in one or two sentences how long a plan takes on this machine, and what is meant if that is very long."""
    if here.seconds == 0:
        out.print("All of it is done.")
        return
    measured = "timed here"
    if here.estimated:
        one = here.estimated[0] if len(here.estimated) == 1 else f"{len(here.estimated)} pairs"
        measured += f"; of {one} partly estimated from that, for want of time: --calibrate times all"
    what = "of this machine's GPU" if here.kind == "cuda" else "of this machine's processor"
    out.print(f"What is not done yet takes {_here_in_words(here)} {what} ({measured}).")
    other = next((d for d in devices if d.unit == "gpuh" and cost[-1].hours[d.label] is not None), None)
    if here.kind == "cpu" and other is not None and (here.seconds or 0) > _LONG:
        hours = in_words(3600 * (cost[-1].hours[other.label] or 0))
        how = "measured" if other.is_measured else "calculated, not measured"
        out.print(
            f"It is meant for GPUs: one {other.label} takes {hours} ({how}), and `submit` shares it among those of a "
            "cluster. What of it fits some hours, `--budget` says."
        )


def _here_in_words(here: TimeHere) -> str:
    if here.seconds is None:
        return "a time that is not known"
    return f"{in_words(here.seconds)} on {here.workers} worker{'s'[: here.workers > 1]}"


def print_hours(cost: list[Cost], devices: list[Device]) -> None:
    """Print the hours that pairs take on each device, and the sources of these numbers."""
    from lthbench.suite import cost as costs

    table = Table("", title="hours of one worker for what is not done yet")
    for device in devices:
        table.add_column(f"{device.label}\n{'measured' if device.is_measured else 'calculated'}", justify="right")
    for row in cost:
        table.add_row(row.name, *(costs.in_words(row.hours[device.label]) for device in devices))
    out.print(table)
    for device in devices:
        out.print(f"{device.label}: {device.source}.")
    if not any(device.is_measured for device in devices):
        out.print("None of them was measured; `--calibrate` measures this machine's.")
    out.print(
        "Measurement, writing and starting tasks are left out; experiments that choose tasks by results (onset, "
        "regulariser) count as far as they are known."
        + (" Hours of a GPU are those of one worker on it." if any(d.unit == "gpuh" for d in devices) else "")
    )
