"""Static figures of the CUDA kernels as they were built: registers, shared memory, spills, 16-byte accesses.

    python ci/sass.py [--arch sm_90] [--json FILE] [--threshold]

They are read from lthbench/_C_cuda.abi3.so with cuobjdump and nvdisasm, which come with the CUDA toolkit, with triton,
or with `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`. Exits with 1 where a kernel spills registers.
With --threshold it estimates instead how long an H100 takes for the threshold and the masks of networks (see PHASES).
"""

from __future__ import annotations

import argparse
import heapq
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


@dataclass(frozen=True)
class Phase:
    """One launch of pruning by rank, as it is estimated: its gap, then bytes or instructions, then what one block does.

    Where 2 % of the weights are inside the bracket, 6 bytes each are written and read again.
    """

    kernel: str  # part of its mangled name
    bytes_a_weight: float = 0.0
    wide_loads: int = 0  # of 16 bytes, that a thread makes for `weights_a_thread` weights
    weights_a_thread: int = 1
    serial: float = 0.0  # seconds of dependent reads (0.4 us each), barriers and shared atomics of one block
    serial_a_chunk: float = 0.0


PHASES = (
    Phase("prepare", serial=3e-6),
    Phase("bracket_kernel", serial=8e-6),  # the sample in registers, three digits of both ends at once
    Phase("collect_kernelILb1", 4.25 + 0.02 * 6, 8, 32, serial=2e-6, serial_a_chunk=0.3e-6 / 256),
    Phase("resolve_kernel", 0.02 * (6 + 8), serial=3e-6),
)
COPY = 0.9 * 3.35e12  # bytes per second, read and written, of an H100 SXM
ISSUE = 132 * 4 * 32 * 1.7e9  # instructions of threads per second
GAP = 2.5e-6  # seconds before each launch
SPAN = 8192  # weights of a chunk
# Weights with two dimensions or more.
NETWORKS = {
    "resnet20": 270_896,
    "resnet18": 11_678_912,
    "resnet50": 25_502_912,
    "swin_t": 28_222_746,
    "vit_b_16": 86_444_544,
}


def instructions(mangled: str, arch: str) -> dict[str, list[tuple[int, str]]]:
    """Address and text of each instruction of the kernels whose mangled name holds this."""
    kernels: dict[str, list[tuple[int, str]]] = {}
    current: list[tuple[int, str]] | None = None
    for line in dump("-sass", arch, find_tools()).splitlines():
        if found := re.search(r"Function : (\S+)", line):
            current = kernels.setdefault(found.group(1), []) if mangled in found.group(1) else None
        elif current is not None and (found := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", line)):
            current.append((int(found.group(1), 16), found.group(2)))
    return kernels


def fewest_instructions(code: list[tuple[int, str]], wide_loads: int) -> int:
    """Instructions on the shortest way from a kernel's entry to its end that makes so many 16-byte loads."""
    place = {address: i for i, (address, _) in enumerate(code)}
    meeting = {}
    for _, text in code:
        if found := re.search(r"BSSY\S* (B\d+), 0x([0-9a-f]+)", text):
            meeting.setdefault(found.group(1), []).append(int(found.group(2), 16))

    def after(i: int) -> list[int]:
        address, text = code[i]
        operation = re.sub(r"^@\S+\s+", "", text)
        following = [i + 1] if i + 1 < len(code) else []
        if operation.startswith("EXIT"):
            return following if operation != text else []
        if found := re.match(r"BRA\S*\s.*?0x([0-9a-f]+)", operation):
            always = operation == text and re.match(r"BRA(\.U)?\s+0x", operation)
            return [place[int(found.group(1), 16)], *([] if always else following)]
        if found := re.match(r"BSYNC\S*\s+(B\d+)", operation):
            targets = meeting.get(found.group(1), [])
            return following if any(abs(t - address) <= 32 for t in targets) else [place[t] for t in targets]
        return following

    seen = set()
    ways = [(0, 0, 0)]
    while ways:
        length, i, loads = heapq.heappop(ways)
        if (i, loads) in seen:
            continue
        seen.add((i, loads))
        text = code[i][1]
        loads = min(wide_loads, loads + bool(re.search(r"LDG\S*\.128", text)))
        if loads == wide_loads and "EXIT" in text:
            return length + 1
        for following in after(i):
            heapq.heappush(ways, (length + 1, following, loads))
    raise ValueError(f"no way through the kernel makes {wide_loads} loads of 16 bytes")


def print_threshold(arch: str) -> None:
    """The estimate of each phase for each network, and how much of the copy bandwidth the necessary bytes then take."""
    costs = {}
    for phase in PHASES:
        if phase.wide_loads:
            found = instructions(phase.kernel, arch)
            if len(found) != 1:
                sys.exit(f"{LIBRARY} holds no kernel {phase.kernel} for {arch}; see TORCH_CUDA_ARCH_LIST")
            (code,) = found.values()
            costs[phase.kernel] = fewest_instructions(code, phase.wide_loads) / phase.weights_a_thread
            print(f"{phase.kernel}: {costs[phase.kernel]:.1f} instructions per weight")
    print(f"{'network':10} {'weights':>10} {'us':>7} {'of copy bandwidth: 8 3/8':>25} {'4 1/4 bytes per weight':>21}")
    for network, weights in NETWORKS.items():
        seconds = 0.0
        for phase in PHASES:
            reading = weights * max(phase.bytes_a_weight / COPY, costs.get(phase.kernel, 0.0) / ISSUE)
            seconds += GAP + reading + phase.serial + phase.serial_a_chunk * weights / SPAN
        shares = [weights * b / COPY / seconds for b in (8.375, 4.25)]
        print(f"{network:10} {weights:10} {1e6 * seconds:7.1f} {shares[0]:25.0%} {shares[1]:21.0%}")


def main() -> None:
    """Print the table; exit with 1 on a spill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", action="append", help="an architecture of the build (default: sm_80 and sm_90)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--threshold", action="store_true", help="the estimate for the threshold and the masks")
    arguments = parser.parse_args()
    if not LIBRARY.exists():
        sys.exit(
            f"{LIBRARY} is not there; build lthbench where nvcc is found (pip install -v -e . prints why it was not)"
        )
    if arguments.threshold:
        print_threshold((arguments.arch or ["sm_90"])[0])
        return
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
