"""Loading of the compiled kernels, and what was built; without them the plain PyTorch reference is used."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import platform
import warnings
from pathlib import Path
from types import ModuleType

import torch

from lthbench.ops import sources

CSRC = Path(__file__).parents[2] / "csrc"  # beside the package in a checkout; an installed wheel has none
BUILD_AGAIN = "build them again by ci/install.sh"


class KernelWarning(UserWarning):
    """The kernels that were found are not the expected ones; the message is one line with its cure."""


def _load(name: str) -> tuple[ModuleType | None, str]:
    """The extension module, or None and the reason why it is not there."""
    if importlib.util.find_spec(f"lthbench.{name}") is None:
        return None, "not built at install"
    try:
        return importlib.import_module(f"lthbench.{name}"), ""
    except (ImportError, OSError) as error:
        return None, f"built, but it does not load: {error}"


def _load_cpu() -> tuple[ModuleType | None, ModuleType | None, str]:
    """The CPU part, which is the operators and the optimizer cache, or neither and the reason."""
    operators, reason = _load("_C")
    if operators is None:
        return None, None, reason
    cache, reason = _load("_optimizer_cache")
    if cache is None:
        version = ".".join(platform.python_version_tuple()[:2])
        return None, None, f"its optimizer cache for Python {version} is {reason}"
    if cache.built_from != operators.built_from:  # they share structures in memory
        return None, None, "its optimizer cache was compiled from other sources than its operators"
    return operators, cache, ""


_cpu, _cache, _cpu_reason = _load_cpu()
_cuda, _cuda_reason = _load("_C_cuda") if _cpu else (None, "it needs the CPU part")


def reference_wanted() -> bool:
    """Whether LTHBENCH_REFERENCE=1 asks for the plain PyTorch reference in place of the kernels."""
    return os.environ.get("LTHBENCH_REFERENCE", "0") not in ("", "0")


def kernels_available(device: torch.device | str = "cpu") -> bool:
    """Whether the compiled kernels of this device's type are loaded, and not switched off by LTHBENCH_REFERENCE=1."""
    kind = torch.device(device).type
    module = {"cpu": _cpu, "cuda": _cuda}.get(kind)
    return module is not None and not reference_wanted()


def why_no_kernels(device: torch.device | str = "cpu") -> str | None:
    """Why the reference is used on a device, or None where its kernels are."""
    if kernels_available(device):
        return None
    return "LTHBENCH_REFERENCE=1" if reference_wanted() else build_info()[torch.device(device).type]


def build_info() -> dict[str, str]:
    """What is loaded, one line per part, for reports: part -> "loaded" or the reason why not."""
    return {
        "cpu": "loaded" if _cpu else _cpu_reason,
        "cuda": "loaded" if _cuda else _cuda_reason,
        "selected": "reference (LTHBENCH_REFERENCE=1)" if reference_wanted() else "kernels" if _cpu else "reference",
    }


def built_from() -> dict[str, str]:
    """The digest of the sources that each loaded part was compiled from (lthbench.ops.sources); empty where unknown."""
    modules = {"cpu": _cpu, "cuda": _cuda}
    return {part: getattr(module, "built_from", "") for part, module in modules.items() if module}


def of_other_sources(csrc: Path = CSRC) -> list[str]:
    """The loaded parts that were compiled from other sources than those beside the package.

    Empty where there are no sources, as in an installed wheel; a part that does not name its own is left out.
    """
    if not (csrc / "ops.cpp").is_file():
        return []
    return [part for part, built in built_from().items() if built and built != sources.digest(csrc, part)]


def why_not_these_kernels(device: torch.device | str = "cpu") -> str | None:
    """Why these kernels may not compute results on a device, with the cures; None where they may.

    Kernels built from other sources may compute something else, and the numbers would not show it.
    """
    used = {"cpu", torch.device(device).type}  # a training on a GPU has work for the processor too
    parts = [] if reference_wanted() else [part for part in of_other_sources() if part in used]
    if not parts:
        return None
    return (
        f"results by kernels ({', '.join(parts)}) built from other sources than {CSRC} could not be reproduced; "
        f"{BUILD_AGAIN}, or set LTHBENCH_REFERENCE=1 to compute without them"
    )


def extension(device: torch.device | str = "cpu") -> ModuleType:
    """The extension module of a device's type.

    Raises:
        RuntimeError: it is not loaded; ask `kernels_available` first.
    """
    kind = torch.device(device).type
    module, reason = {"cpu": (_cpu, _cpu_reason), "cuda": (_cuda, _cuda_reason)}.get(kind, (None, "no such kernels"))
    if module is None:
        raise RuntimeError(f"no compiled kernels for {kind}: {reason}; reinstall lthbench with a compiler at hand")
    return module


def optimizer_cache() -> ModuleType:
    """The module of the optimizer cache, whose kernels are those of `extension`; raises as it does."""
    extension("cpu")
    assert _cache is not None  # they are loaded together
    return _cache


def is_loaded() -> bool:
    """Whether the CPU part is loaded, whose schemas are those of all operators."""
    return _cpu is not None


def unload(reason: str) -> None:
    """Do without the binary from here on, and warn of it."""
    global _cpu, _cuda, _cpu_reason, _cuda_reason
    _cpu, _cuda = None, None
    _cpu_reason = _cuda_reason = reason
    warnings.warn(f"lthbench's kernels are not used: {reason}", KernelWarning, stacklevel=2)


def _tell_of_other_sources() -> None:
    if parts := of_other_sources():
        warnings.warn(
            f"lthbench's kernels ({', '.join(parts)}) were compiled from other sources than those in {CSRC}, of "
            f"another checkout or an older state; {BUILD_AGAIN}",
            KernelWarning,
            stacklevel=2,
        )


if multiprocessing.parent_process() is None:  # the others would each say it again
    _tell_of_other_sources()
