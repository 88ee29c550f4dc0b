"""Compile CUDA kernels with g++ against the host executor, whole or with a fault planted in their source."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXECUTOR = Path(__file__).resolve().parent / "host_executor"
SANITIZERS = {
    "plain": [],
    "thread": ["-fsanitize=thread"],
    "address": ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"],
}
# A race need not be reported twice; leaks are not what these tests are about.
ENVIRONMENT = {
    "LD_PRELOAD": "",  # of another sanitizer, say
    "TSAN_OPTIONS": "halt_on_error=1 report_signal_unsafe=0",
    "ASAN_OPTIONS": "detect_leaks=0 detect_stack_use_after_return=0",
}


def why_unavailable() -> str | None:
    """The reason that the host executor cannot run here, or None."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"the host executor switches fibres on x86-64 only, this is {platform.machine()}"
    return None if shutil.which("g++") else "g++ is not installed"


@dataclass(frozen=True)
class Fault:
    """A textual change of one kernel file that makes it wrong."""

    name: str
    source: str  # relative to csrc
    old: str
    new: str
    driver: str


@dataclass(frozen=True)
class Outcome:
    """How a run of a driver ended: `verdict` is "equal", what was found wrong and where, or "exit code n"."""

    verdict: str
    output: str

    @property
    def caught(self) -> bool:
        """Whether a fault was recognised; a crash does not count."""
        return self.verdict != "equal" and not self.verdict.startswith("exit code")


class HostCompiler:
    """Builds drivers with the kernels they test; objects are cached by the content they are made from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        headers = [*ROOT.glob("csrc/**/*.h"), *EXECUTOR.glob("*.h")]
        self.headers = "".join(p.read_text() for p in sorted(headers))

    def executable(self, driver: str, sources: list[str], sanitizer: str, fault: Fault | None = None) -> Path:
        """The driver linked with csrc/<sources>, the CUDA kernels and the driver built with the sanitizer."""
        flags = SANITIZERS[sanitizer]
        objects = [
            self._object(EXECUTOR / "host_executor.cpp", []),
            self._object(EXECUTOR / f"{driver}.cpp", flags),
        ]
        for source in sources:
            # The CPU kernels are only compared with; their ifunc resolvers run before a sanitizer is ready.
            watched = flags if source.endswith(".cu") else []
            objects.append(self._object(ROOT / "csrc" / source, watched, fault))
        name = hashlib.sha256(" ".join(o.name for o in objects).encode()).hexdigest()[:16]
        program = self.folder / f"{driver}-{sanitizer}-{name}"
        if not program.exists():
            self._compile([*flags, *map(str, objects)], program)
        return program

    def run(self, program: Path, *arguments: int) -> Outcome:
        """Run a driver and say how it ended."""
        done = subprocess.run(
            [program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **ENVIRONMENT},
        )
        output = done.stdout + done.stderr
        return Outcome(_verdict(done.returncode, output), output)

    def _object(self, path: Path, flags: list[str], fault: Fault | None = None) -> Path:
        text = path.read_text()
        if fault and path == ROOT / "csrc" / fault.source:
            if text.count(fault.old) != 1:
                raise AssertionError(f"{fault.name}: {path.name} holds {text.count(fault.old)} times {fault.old!r}")
            text = text.replace(fault.old, fault.new)
        optimise = ["-O2"] if path.suffix == ".cpp" else ["-O1"]
        flags = ["-std=c++20", "-g", *optimise, "-ffp-contract=off", *flags]
        key = hashlib.sha256((text + self.headers + " ".join(flags)).encode()).hexdigest()[:16]
        target = self.folder / f"{path.stem}-{key}.o"
        if not target.exists():
            source = self.folder / f"{path.stem}-{key}{path.suffix}"
            # The directive makes reports name the kernel's own file and line.
            source.write_text(f'#line 1 "{path.relative_to(ROOT)}"\n{text}')
            include = ["-iquote", str(path.parent), f"-I{ROOT / 'csrc'}", f"-I{EXECUTOR}"]
            self._compile([*flags, "-DLTH_HOST_EXECUTOR", *include, "-c", "-x", "c++", str(source)], target)
        return target

    def _compile(self, arguments: list[str], target: Path) -> None:
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        done = subprocess.run(
            ["g++", *arguments, "-o", str(part)], capture_output=True, text=True, env={**os.environ, **ENVIRONMENT}
        )
        if done.returncode:
            raise AssertionError(f"g++ {' '.join(arguments)}\n{done.stderr}")
        part.replace(target)


def _verdict(code: int, output: str) -> str:
    if code == 0 and output.endswith("equal\n"):
        return "equal"
    where = re.search(r"#0 .* (csrc/\S+:\d+)", output)
    place = f" at {where.group(1)}" if where else ""
    if "ThreadSanitizer: data race" in output:
        return f"data race{place}"
    if "AddressSanitizer" in output:
        kind = re.search(r"AddressSanitizer: (\S+)", output)
        return f"{kind.group(1) if kind else 'bad access'}{place}"
    undefined = re.search(r"(csrc/\S+:\d+):\d+: runtime error: (.*)", output)
    if undefined:
        return f"{'misaligned access' if 'misaligned' in undefined[2] else undefined[2]} at {undefined[1]}"
    found = re.search(r"(wrong result|host executor): .*", output)
    return found.group(0) if found else f"exit code {code}"
