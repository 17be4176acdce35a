"""The place of kernels in Triton, for GPUs. There are none yet.

What comes here implements `engine.kernels.backend.Backend` for device type ``cuda``: attention over
the paged cache, norms, rotary embedding, gates, products of quantized weights, and draws. Until all
of it is there, a backend may inherit the rest from `engine.kernels.reference.backend`, its oracle
in tests. It names what it serves in ``service`` and what it lacks on a machine in ``obstacle``;
`engine.executors.choose` lists it ahead of the reference.
"""
