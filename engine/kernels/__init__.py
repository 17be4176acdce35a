"""Compute kernels: checked public functions over interchangeable backends.

`backend` names what a backend implements: `reference` in torch, `native` in C for CPUs, and a place
for `triton`.
"""
