"""The kernels under older instruction sets than this processor's: tests of each family, called in a process of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from devices import needs_kernels

CALLS = """\
import test_blocked_training as training, test_masked_linear as linear, test_threshold as threshold

for kind in threshold.KINDS:
    for dtype in threshold.DTYPES:
        for magnitude in (True, False):
            threshold.test_masks_are_those_of_a_stable_sort(kind, dtype, magnitude, "cpu")
for case in linear.CASES:
    linear.test_outputs_and_gradients_are_those_of_the_dense_masked_layer(case, False)
for case in (training.CASES[1], training.CASES[2], training.CASES[9]):
    training.test_a_masked_convolution_and_its_gradients_are_those_of_the_dense_one_within_their_rounding(case)
training.test_a_dense_convolution_by_winograd_has_the_gradients_of_the_direct_one((16, 16, 16, (7, 5)), True)
for case in training.NORMS[::2]:
    training.test_normalisation_with_what_follows_has_the_outputs_and_gradients_of_the_layers(case, True)
"""


@needs_kernels
@pytest.mark.parametrize("isa", ["base", "v3"])
def test_older_instruction_sets_give_the_same_masks_and_the_same_layers_within_rounding(isa: str) -> None:
    tests = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    environment = {**os.environ, "LTHBENCH_CPU_ISA": isa}
    subprocess.run([sys.executable, "-c", tests + CALLS], check=True, env=environment)
