"""Kernels in Triton, for NVIDIA GPUs of compute capability 8.0 and newer.

`backend` is what an engine chooses, `fused` all passes of a step: `attention` over the paged cache,
`products` with weights of 16, 8 and 4 bits, `passes` between them; `sampling` draws tokens. Every
launch goes through `launch`. The ``shipped`` module of each package lists what it launches for the
models that it is made for, so that all of it can be compiled without a GPU.
"""
