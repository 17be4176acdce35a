"""Products of a step's activations with weights of 16, 8 or 4 bits.

`products` says which kernel serves a weight, `configuration` how it is launched. Weights of 8 bits
keep their layout; those of 4 bits get the one of `layout`.
"""

from engine.kernels.triton.products.shipped import shipped_launches

__all__ = ["shipped_launches"]
