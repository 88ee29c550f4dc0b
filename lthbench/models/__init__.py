"""The networks of the paper, one file per family; `spec` is torch-free, `build` makes modules."""
