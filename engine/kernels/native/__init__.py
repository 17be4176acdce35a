"""Kernels in C for CPUs, built by the system's compiler; without one the reference serves."""
