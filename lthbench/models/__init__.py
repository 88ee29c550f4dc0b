"""The networks of the paper, one file a family; `spec` is torch-free, `build` makes modules."""
