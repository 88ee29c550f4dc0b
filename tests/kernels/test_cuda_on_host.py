"""Every CUDA kernel gives the CPU kernel's results on the host executor, and planted faults are caught there."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_compiler import SANITIZERS, Fault, HostCompiler, why_unavailable

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))

DRIVERS = {
    "interpolation_driver": [
        "cpu/count_errors.cpp",
        "cpu/lerp_pairs.cpp",
        "cuda/count_errors.cu",
        "cuda/lerp_pairs.cu",
    ],
    "masks_driver": ["cpu/masks.cpp", "cuda/masks.cu"],
    "update_driver": ["cpu/masked_update.cpp", "cuda/masked_update.cu"],
    "threshold_driver": [
        "cpu/masks.cpp",
        "cpu/threshold/threshold.cpp",
        "cuda/threshold/count_bits.cu",
        "cuda/masks.cu",
        "cuda/threshold/prune_collect.cu",
        "cuda/threshold/prune_prepare.cu",
        "cuda/threshold/prune_resolve.cu",
        "cuda/threshold/select_bracket.cu",
        "cuda/threshold/select_radix.cu",
        "cuda/threshold/threshold.cu",
    ],
}

FAULTS = [
    Fault(
        "missing barrier after the warps' sums",
        "cuda/count_errors.cu",
        "    errors[warp] = wrong;\n  }\n  __syncthreads();",
        "    errors[warp] = wrong;\n  }",
        "interpolation_driver",
    ),
    Fault(
        "missing barrier before the tree sum",
        "cuda/count_errors.cu",
        "  errors[threadIdx.x] = wrong;\n  __syncthreads();",
        "  errors[threadIdx.x] = wrong;",
        "interpolation_driver",
    ),
    Fault(
        "missing barrier between the steps of the tree sum",
        "cuda/count_errors.cu",
        "    }\n    __syncthreads();\n  }",
        "    }\n  }",
        "interpolation_driver",
    ),
    Fault(
        "barrier inside a branch",
        "cuda/count_errors.cu",
        "    }\n    __syncthreads();\n  }",
        "      __syncthreads();\n    }\n  }",
        "interpolation_driver",
    ),
    Fault(
        "warp mask of half a warp",
        "cuda/count_errors.cu",
        "kFullWarp = 0xffffffffu",
        "kFullWarp = 0x0000ffffu",
        "interpolation_driver",
    ),
    Fault(
        "rows counted once too often at the tail",
        "cuda/count_errors.cu",
        "row < end; row += kWarps",
        "row <= end; row += kWarps",
        "interpolation_driver",
    ),
    Fault(
        "off by one at the tail of a tensor",
        "cuda/lerp_pairs.cu",
        "i = begin + threadIdx.x; i < end;",
        "i = begin + threadIdx.x; i <= end;",
        "interpolation_driver",
    ),
    Fault(
        "16-byte access to rows of odd length",
        "cuda/lerp_pairs.cu",
        " && pair.count % 4 == 0",
        "",
        "interpolation_driver",
    ),
    Fault(
        "the last word is packed by the lanes inside the mask alone",
        "cuda/masks.cu",
        "  const int64_t padded = (numel + 31) / 32 * 32;",
        "  const int64_t padded = numel;",
        "masks_driver",
    ),
    Fault(
        "a word is shifted by more than its width",
        "cuda/masks.cu",
        "words[i / 32] >> (i % 32)",
        "words[i / 32] >> i",
        "masks_driver",
    ),
    Fault(
        "a bit is read beyond the mask",
        "cuda/masks.cu",
        "i < numel && mask[i]",
        "mask[i]",
        "masks_driver",
    ),
    Fault(
        "a short row's neighbour is read",
        "cuda/count_errors.cu",
        "const float* z = rows + int(threadIdx.x) * num_classes;",
        "const float* z = rows + int(threadIdx.x) * num_classes + 1;",
        "interpolation_driver",
    ),
    Fault(
        "missing barrier before short rows are read",
        "cuda/count_errors.cu",
        "rows[i] = from[i];\n  __syncthreads();",
        "rows[i] = from[i];",
        "interpolation_driver",
    ),
    Fault(
        "16-byte access to rows of odd length",
        "cuda/count_errors.cu",
        " && batch.num_classes % 4 == 0",
        "",
        "interpolation_driver",
    ),
    Fault(
        "ties go to whichever lane is asked",
        "cuda/count_errors.cu",
        "(!(z < best) && c < best_class)",
        "!(z < best)",
        "interpolation_driver",
    ),
    Fault(
        "missing barrier before the warps' distances are added",
        "cuda/masked_update.cu",
        "  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;\n  __syncthreads();",
        "  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;",
        "update_driver",
    ),
    Fault(
        "off by one at the tail of a parameter",
        "cuda/masked_update.cu",
        "i = wide_end + threadIdx.x; i < end;",
        "i = wide_end + threadIdx.x; i <= end;",
        "update_driver",
    ),
    Fault(
        "mask bits of the neighbouring weight",
        "cuda/masked_update.cu",
        "0u - (bits >> 2 & 1u)",
        "0u - (bits >> 1 & 1u)",
        "update_driver",
    ),
    Fault(
        "missing barrier after the histogram is cleared",
        "cuda/threshold/select_radix.cu",
        "bins[i] = 0;\n  __syncthreads();",
        "bins[i] = 0;",
        "threshold_driver",
    ),
    Fault(
        "missing barrier before the sample's range is read",
        "cuda/threshold/select_bracket.cu",
        "    largest_of[threadIdx.x / 32] = largest;\n  }\n  __syncthreads();",
        "    largest_of[threadIdx.x / 32] = largest;\n  }",
        "threshold_driver",
    ),
    Fault(
        "samples are taken from tensors of another table",
        "cuda/threshold/prune_prepare.cu",
        "if (place < slice.tensors[0].start || place >= last.start + last.numel) continue;",
        "",
        "threshold_driver",
    ),
    Fault(
        "missing barrier before the block's place for its keys is read",
        "cuda/threshold/prune_collect.cu",
        "  __syncthreads();\n  Count at = first_of[warp] + before;",
        "  Count at = first_of[warp] + before;",
        "threshold_driver",
    ),
    Fault(
        "the keys at the bracket's lower end count twice",
        "cuda/threshold/prune_collect.cu",
        "find_bin(work.bins + g * kBins, rank - cleared,",
        "find_bin(work.bins + g * kBins, rank - below,",
        "threshold_driver",
    ),
    Fault(
        "a byte of the mask is not written where none survives",
        "cuda/threshold/prune_collect.cu",
        "    if (i >= end) continue;",
        "    if (i >= end || survivors_of[round] == 0) continue;",
        "threshold_driver",
    ),
    Fault(
        "NaN are not looked at closely",
        "cuda/threshold/prune_collect.cu",
        " || key >= nan_key(kMagnitude);",
        ";",
        "threshold_driver",
    ),
    Fault(
        "increment that is not atomic",
        "cuda/threshold/select_bracket.cu",
        "atomicAdd(&bins[end][above >> shift], 1u);",
        "++bins[end][above >> shift];",
        "threshold_driver",
    ),
    Fault(
        "no block is the last of its group",
        "cuda/threshold/prune_resolve.cu",
        "is_last_block(group, group.num_chunks / kWarps)",
        "is_last_block(group, group.num_chunks)",
        "threshold_driver",
    ),
    Fault(
        "the threshold itself is kept",
        "cuda/threshold/prune_resolve.cu",
        "if (finalist > threshold) continue;",
        "if (finalist >= threshold) continue;",
        "threshold_driver",
    ),
    Fault(
        "one tie too many",
        "cuda/threshold/prune_resolve.cu",
        "ties && before < num_ties;",
        "ties && before <= num_ties;",
        "threshold_driver",
    ),
    Fault(
        "ballot of half a warp",
        "cuda/masks.cu",
        "__ballot_sync(0xffffffffu,",
        "__ballot_sync(0x0000ffffu,",
        "threshold_driver",
    ),
]


@pytest.fixture(scope="module")
def compiler(request: pytest.FixtureRequest) -> HostCompiler:
    return HostCompiler(Path(request.config.cache.mkdir("host_executor")))  # type: ignore[union-attr]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_300000_weights_give_the_cpu_kernels_results_in_any_order(compiler, driver, seed):
    outcome = compiler.run(compiler.executable(driver, DRIVERS[driver], "plain"), seed, 300_000)
    assert outcome.verdict == "equal", outcome.output


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_no_race_no_access_out_of_bounds_and_nothing_undefined(compiler, driver, sanitizer):
    outcome = compiler.run(compiler.executable(driver, DRIVERS[driver], sanitizer), 1, 20_000)
    assert outcome.verdict == "equal", outcome.output


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
def test_a_planted_fault_is_caught(compiler, fault, capsys):
    found = {}
    for sanitizer in SANITIZERS:
        program = compiler.executable(fault.driver, DRIVERS[fault.driver], sanitizer, fault)
        found[sanitizer] = compiler.run(program, 1, 20_000)
    with capsys.disabled():
        print(f"\nplanted: {fault.name} ({fault.source})")
        for sanitizer, outcome in found.items():
            print(f"  {sanitizer:8} {outcome.verdict if outcome.caught else '-'}")
    assert any(outcome.caught for outcome in found.values()), found
