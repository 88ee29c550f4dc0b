"""Each Python that run.sh starts in the mode `sim`, and each that this one starts, computes on the stand-in."""

import os

if os.environ.get("FAKE_CUDA") == "sim":
    from fake_cuda import sim

    sim.enter()
