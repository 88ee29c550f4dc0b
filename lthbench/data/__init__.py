"""Data sets as tensors on the device: `spec` is torch-free, `load` reads and checks, `images` batches."""
