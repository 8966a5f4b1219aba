"""The tests mirror the packages; `differential` compares with the kernel, `integration` runs real programs, `bench` measures."""
