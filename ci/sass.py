"""Static figures of the CUDA kernels as they were built: registers, shared memory, spills, 16-byte accesses.

    python ci/sass.py [--arch sm_90] [--json FILE]

They are read from lthbench/_C_cuda.abi3.so with cuobjdump and nvdisasm, which come with the CUDA toolkit, with triton,
or with `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`. Exits with 1 where a kernel spills registers.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1] / "lthbench" / "_C_cuda.abi3.so"
SPILL_LIMIT = 0


@dataclass
class Kernel:
    """One kernel on one architecture; counts are of instructions in its SASS."""

    name: str
    arch: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spills: int = 0
    loads: int = 0
    wide_loads: int = 0
    stores: int = 0
    wide_stores: int = 0


def find_tools() -> dict[str, str]:
    """An environment whose PATH holds cuobjdump and nvdisasm; exits with the cure where they are missing."""
    places = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    folders = [Path(p) / "bin" for p in places if p]
    folders += sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/cu*/bin"))
    triton = importlib.util.find_spec("triton")  # comes with a torch for CUDA
    if triton and triton.origin:
        folders.append(Path(triton.origin).parent / "backends/nvidia/bin")
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    for tool in ("cuobjdump", "nvdisasm"):
        if shutil.which(tool, path=path) is None:
            sys.exit(f"{tool} is not found; pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    return {**os.environ, "PATH": path}


def dump(option: str, arch: str, environment: dict[str, str]) -> str:
    """What cuobjdump prints of the library."""
    program = shutil.which("cuobjdump", path=environment["PATH"])
    assert program is not None
    return subprocess.run(
        [program, option, "-arch", arch, str(LIBRARY)], env=environment, capture_output=True, text=True, check=True
    ).stdout


def short_name(mangled: str) -> str:
    """The kernel's name with its template arguments, without its parameters and namespaces."""
    text = mangled
    if shutil.which("c++filt"):
        text = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout.strip()
    text = re.sub(r"\(anonymous namespace\)::|lth::|^void ", "", text)
    return re.sub(r"\((?![^<]*>).*$", "", text)


def read_kernels(arch: str) -> list[Kernel]:
    """The kernels of the library for one architecture."""
    environment = find_tools()
    usage = re.compile(r"Function (\S+):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+)")
    kernels = {
        name: Kernel(short_name(name), arch, int(registers), int(shared), int(stack))
        for name, registers, stack, shared in usage.findall(dump("-res-usage", arch, environment))
    }
    current: Kernel | None = None
    for line in dump("-sass", arch, environment).splitlines():
        if found := re.search(r"Function : (\S+)", line):
            current = kernels.get(found.group(1))
        elif current and (found := re.search(r"\b(LDG|STG|LDL|STL)(\.\S+)?\s", line)):
            kind, wide = found.group(1), ".128" in (found.group(2) or "")
            current.spills += kind in ("LDL", "STL")
            current.loads += kind == "LDG"
            current.wide_loads += kind == "LDG" and wide
            current.stores += kind == "STG"
            current.wide_stores += kind == "STG" and wide
    return sorted(kernels.values(), key=lambda k: k.name)


def main() -> None:
    """Print the table; exit with 1 on a spill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", action="append", help="an architecture of the build (default: sm_80 and sm_90)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    if not LIBRARY.exists():
        sys.exit(
            f"{LIBRARY} is not there; build lthbench where nvcc is found (pip install -v -e . prints why it was not)"
        )
    kernels = [k for arch in arguments.arch or ["sm_80", "sm_90"] for k in read_kernels(arch)]
    if not kernels:
        sys.exit(f"{LIBRARY} holds no kernel for {arguments.arch}; see TORCH_CUDA_ARCH_LIST")
    head = ("kernel", "arch", "regs", "shared", "stack", "spills", "loads", "16 B", "stores", "16 B")
    print("{:58} {:7} {:>4} {:>6} {:>5} {:>6} {:>5} {:>4} {:>6} {:>4}".format(*head))
    for k in kernels:
        print(
            f"{k.name[:58]:58} {k.arch:7} {k.registers:4} {k.shared_bytes:6} {k.stack_bytes:5} {k.spills:6} "
            f"{k.loads:5} {k.wide_loads:4} {k.stores:6} {k.wide_stores:4}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(k) for k in kernels], indent=1) + "\n")
    spilling = [k for k in kernels if k.spills > SPILL_LIMIT]
    if spilling:
        sys.exit(f"registers are spilled (limit {SPILL_LIMIT}): {', '.join(f'{k.name} on {k.arch}' for k in spilling)}")


if __name__ == "__main__":
    main()
