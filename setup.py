"""Build of the lthbench extension; everything else stands in pyproject.toml.

Three libraries are built with ninja: wherever there is a C++ compiler, the operators on the CPU, lthbench._C, and
the optimizer cache, lthbench._optimizer_cache (pybind11, for this version of Python alone); where there is nvcc and a
torch with CUDA, lthbench._C_cuda. Environment:

    LTHBENCH_NO_EXTENSION=1   install pure Python; the plain PyTorch reference is used
    FORCE_CUDA=1 / 0          fail where the CUDA part cannot be built / leave it out
    CUDA_HOME                 the CUDA toolkit, if it is in none of the usual places
    TORCH_CUDA_ARCH_LIST      e.g. "9.0" (default: 8.0, 8.6, 8.9, 9.0, 10.0, 12.0 and PTX of the last)
    MAX_JOBS, DEBUG=1         parallel compilations; -O0 -g
"""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
ARCHS = ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
TARGET = "0x020a000000000000"  # the binary runs under torch 2.10 and later


class BuildWithSuites(build_py):
    """Copies suites/ into the package, where an installed one looks for it (lthbench.suite.shipped)."""

    def run(self) -> None:
        super().run()
        # An editable installation finds the checkout's own.
        if not self.editable_mode:
            self.copy_tree(str(ROOT / "suites"), str(Path(self.build_lib) / "lthbench/suites"))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        there = Path(self.build_lib) / "lthbench/suites"
        return [*super().get_outputs(include_bytecode), *(str(file) for file in there.rglob("*") if file.is_file())]


class WholeSources(sdist):
    """Takes headers, suites, scripts and tests along, of which setuptools knows nothing."""

    def make_distribution(self) -> None:
        for folder in ("csrc", "suites", "ci", "tests"):
            self.filelist.graft(folder)
        self.filelist.include(".clang-format")
        for pattern in ("*.py[cod]", "*.so"):
            self.filelist.global_exclude(pattern)
        super().make_distribution()


def say(key: str, value: object) -> None:
    """Print one line of the configuration (pip shows it with -v)."""
    print(f"lthbench build: {key:<16} {value}", file=sys.stderr, flush=True)


def flag(name: str) -> bool | None:
    """An environment variable as a switch; None where it is unset."""
    value = os.environ.get(name, "").strip().lower()
    return None if not value else value not in ("0", "false", "off", "no")


def find_toolkit() -> Path | None:
    """The first folder that holds both nvcc and its headers: a wrapper on PATH alone is no toolkit."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = [Path(named)] if named else []
    if named and not (Path(named) / "include/cuda_runtime.h").is_file():
        say("CUDA_HOME", f"{named} holds no include/cuda_runtime.h; looking in the usual places")
    places += [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True), Path("/opt/cuda")]
    for packages in {sysconfig.get_paths()["purelib"], *site.getsitepackages()}:
        places += sorted(Path(packages).glob("nvidia/cu[0-9]*"), reverse=True)
        places += sorted(Path(packages).glob("nvidia/cuda_nvcc"))
    on_path = shutil.which("nvcc")
    if on_path:
        places.append(Path(on_path).resolve().parent.parent)
    for place in places:
        if (place / "bin/nvcc").is_file() and (place / "include/cuda_runtime.h").is_file():
            return place
    return None


def toolkit_version(toolkit: Path) -> str:
    """The release nvcc reports, such as 13.0."""
    text = subprocess.run([toolkit / "bin/nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    return found.group(1) if found else "unknown"


def why_no_cuda(torch_cuda: str | None, toolkit: Path | None) -> str | None:
    """The reason to leave the CUDA part out; None where it can be built."""
    if flag("FORCE_CUDA") is False:
        return "FORCE_CUDA=0"
    if torch_cuda is None:
        return "this torch is built without CUDA"
    if toolkit is None:
        return "no folder with bin/nvcc and include/cuda_runtime.h found; set CUDA_HOME"
    version = toolkit_version(toolkit)
    if version.split(".")[0] != torch_cuda.split(".")[0]:
        return f"nvcc in {toolkit} is {version}, but torch is built for CUDA {torch_cuda}; set CUDA_HOME to match"
    return None


def default_archs(version: str) -> str:
    """The architectures that this toolkit knows, as TORCH_CUDA_ARCH_LIST wants them."""
    release = tuple(int(part) for part in version.split("."))
    known = [a for a in ARCHS if a not in ("10.0", "12.0") or release >= (12, 8)]
    return ";".join(known) + "+PTX"


def write_digests() -> Path:
    """Write the digests of the sources as a header, where it would change, and return its folder."""
    digest = runpy.run_path(str(ROOT / "lthbench/ops/sources.py"))["digest"]
    header = ROOT / "build/sources_digest.h"
    parts = {kind: digest(ROOT / "csrc", kind) for kind in ("cpu", "cuda")}
    text = "".join(f'#define LTH_BUILT_FROM_{kind.upper()} "{part}"\n' for kind, part in parts.items())
    header.parent.mkdir(exist_ok=True)
    if not header.is_file() or header.read_text() != text:  # else what includes it would be compiled again
        header.write_text(text)
    say("sources", ", ".join(f"{kind} {part}" for kind, part in parts.items()))
    return header.parent


def find_compiler() -> str | None:
    """The C++ compiler; None, with the reason printed, where the extension is left out.

    Raises:
        SystemExit: FORCE_CUDA=1 asks for what cannot be built.
    """
    if flag("LTHBENCH_NO_EXTENSION"):
        if flag("FORCE_CUDA"):
            raise SystemExit("FORCE_CUDA=1 and LTHBENCH_NO_EXTENSION=1 contradict each other; unset one")
        say("extension", "left out (LTHBENCH_NO_EXTENSION=1); the plain PyTorch reference is used")
        return None
    compiler = shutil.which(os.environ.get("CXX", "c++").split()[0]) or shutil.which("g++")
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    lacking = next((name for name in ("pybind11", "torch") if importlib.util.find_spec(name) is None), None)
    if lacking:
        missing = f"{lacking} at build time (use --no-build-isolation, or install it)"
    elif compiler is None:
        missing = "C++ compiler"
    elif not headers.is_file():
        missing = f"{headers} (of Debian's python3-dev, say)"
    else:
        return compiler
    if flag("FORCE_CUDA"):
        raise SystemExit(f"FORCE_CUDA=1, but the extension cannot be built: no {missing}")
    say("extension", f"left out: no {missing}; the plain PyTorch reference is used")
    return None


def find_cuda() -> Path | None:
    """The toolkit that the CUDA part is built with; None, with the reason printed, where that is left out.

    Raises:
        SystemExit: FORCE_CUDA=1 asks for what cannot be built.
    """
    import torch

    toolkit = find_toolkit()
    reason = why_no_cuda(torch.version.cuda, toolkit)
    if reason and flag("FORCE_CUDA"):
        raise SystemExit(f"FORCE_CUDA=1, but the CUDA part cannot be built: {reason}")
    if toolkit is None or reason:
        say("CUDA", f"left out: {reason}")
        return None
    # Set before torch.utils.cpp_extension is imported, which would else take the parent of whatever nvcc is on PATH.
    os.environ["CUDA_HOME"] = str(toolkit)
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", default_archs(toolkit_version(toolkit)))
    say("CUDA", f"{toolkit_version(toolkit)} in {toolkit}, for {os.environ['TORCH_CUDA_ARCH_LIST']}")
    return toolkit


def extensions() -> tuple[list[object], dict[str, object]]:
    """The extension modules and the build command, or nothing for a pure Python installation."""
    compiler = find_compiler()
    if compiler is None:
        return [], {}
    toolkit = find_cuda()
    import pybind11
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

    debug = bool(flag("DEBUG"))
    optimise = ["-O0", "-g"] if debug else ["-O3"]
    # No contraction: which products are fused with an addition is part of each kernel's definition.
    cxx = [
        *optimise,
        "-std=c++17",
        "-fvisibility=hidden",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-Wno-maybe-uninitialized",
        "-Wno-psabi",  # every function that takes a vector is inlined
    ]
    cxx += [f"-DTORCH_TARGET_VERSION={TARGET}"] if debug else ["-g0", f"-DTORCH_TARGET_VERSION={TARGET}"]
    include = [str(ROOT / "csrc"), str(write_digests())]
    jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)

    def sources(*patterns: str) -> list[str]:
        return sorted(str(p.relative_to(ROOT)) for pattern in patterns for p in ROOT.glob(pattern))

    cache = "csrc/optimizer_cache.cpp"
    modules = [
        CppExtension(
            "lthbench._C",
            [source for source in sources("csrc/*.cpp", "csrc/cpu/**/*.cpp") if source != cache],
            include_dirs=include,
            extra_compile_args={"cxx": cxx},
            py_limited_api=True,
        ),
        CppExtension(
            "lthbench._optimizer_cache",
            [cache],
            include_dirs=[pybind11.get_include(), *include],  # before torch's, which has a pybind11 of its own
            extra_compile_args={"cxx": cxx},
        ),
    ]
    say("torch", f"{torch.__version__} (the binary runs under 2.10 and later)")
    say("compiler", compiler)
    say("flags", " ".join(cxx))
    if toolkit:
        threads = os.environ.get("NVCC_THREADS") or str(min(2, int(jobs)))
        host = ",".join(a for a in cxx if a.startswith("-f"))
        nvcc = [*optimise, "-std=c++17", "-lineinfo", "--fmad=false", "--threads", threads, "-Xcompiler", host]
        modules.append(
            CUDAExtension(
                "lthbench._C_cuda",
                sources("csrc/cuda/**/*.cpp", "csrc/cuda/**/*.cu"),
                include_dirs=include,
                extra_compile_args={"cxx": [*cxx, "-DUSE_CUDA"], "nvcc": nvcc},
                py_limited_api=True,
            )
        )
        say("nvcc flags", " ".join(nvcc))
    say("jobs", jobs)
    return modules, {"build_ext": BuildExtension.with_options(use_ninja=True, no_python_abi_suffix=False)}


modules, commands = extensions()
setup(
    ext_modules=modules,
    cmdclass={"build_py": BuildWithSuites, "sdist": WholeSources, **commands},
)
