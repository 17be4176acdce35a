"""The fused passes of a step on a device whose work runs while the host goes on.

`kernels` is the protocol that Triton's kernels and torch's implement, `tensors` what they read and
write, `device` what they run on.
"""
