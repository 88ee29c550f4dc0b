"""The examination of an installation, for `lthbench doctor`."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from lthbench.bench.narrow import train_narrow
from lthbench.bench.selfcheck import run_families
from lthbench.data.commands import list_data
from lthbench.ops._library import BUILD_AGAIN, build_info, built_from, of_other_sources
from lthbench.runner.environment import environment

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One examined item: fine, worth a note, or a problem."""

    level: Level
    what: str
    text: str


def examine(store: Path, data: Path | None) -> list[Finding]:
    """Examine versions, processor, memory, GPUs, kernels, data sets and the store's disk."""
    here = environment(torch.device("cpu"))
    versions = ", ".join(f"{name} {here[name]}" for name in ("lthbench", "python", "torch", "torchvision"))
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory()
    findings = [
        Finding("ok", "versions", versions),
        Finding(
            "ok",
            "processor",
            f"{cores} cores ({platform.machine()}, {here['cpu_capability']}), "
            f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB memory free",
        ),
        _gpus(),
    ]
    findings += _kernels()
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for family, (right, form) in run_families(device).items():
            findings.append(
                Finding("ok", f"{family}, {device}", f"the {form} runs, and its result is right")
                if right
                else Finding(
                    "problem", f"{family}, {device}", f"the {form} gives a wrong result; LTHBENCH_REFERENCE=1 avoids it"
                )
            )
    findings.append(_narrow_networks())
    there = [status.name for status in list_data(data) if status.present]
    missing = [status.name for status in list_data(data) if not status.present]
    findings.append(Finding("ok", "data sets", "there: " + ", ".join(there)))
    if missing:
        findings.append(
            Finding("note", "data sets", f"not there: {', '.join(missing)}; `lthbench data download NAME --data DIR`")
        )
    findings.append(_disk(store))
    return findings


def _kernels() -> list[Finding]:
    """Which kernels are loaded, from which sources, whether these match csrc/, and which are used."""
    findings, built, others = [], built_from(), of_other_sources()
    for part, state in build_info().items():
        level: Level = "ok" if state in ("loaded", "kernels") else "note"
        if part == "cuda" and not torch.cuda.is_available():
            level = "ok"
        if part in others:
            level, state = "problem", f"{state}, of other sources ({built[part]}) than those in csrc/; {BUILD_AGAIN}"
        elif part in built:
            state += f", built from sources {built[part] or 'without a recorded digest'}"
        findings.append(Finding(level, f"kernels, {part}", state))
    return findings


def _gpus() -> Finding:
    if not torch.cuda.is_available():
        return Finding("note", "GPU", "none that torch can use; everything runs on the processor")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("ok", "GPU", ", ".join(names))


def _narrow_networks() -> Finding:
    code = train_narrow()
    if code == 0:
        return Finding("ok", "narrow networks", "a ResNet of few channels trains, and the heap is whole after it")
    end = f"ended by signal {-code}" if code < 0 else f"ended with {code}"
    return Finding(
        "problem",
        "narrow networks",
        f"the training of a ResNet of few channels {end}: torch {torch.__version__} may damage memory; use another",
    )


def _disk(store: Path) -> Finding:
    folder = store.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    if not os.access(folder, os.W_OK):
        return Finding("problem", "store", f"{folder} cannot be written; give another --store")
    return Finding("ok" if free > 5 else "note", "store", f"{store.absolute()}: {free:.1f} GiB free")
