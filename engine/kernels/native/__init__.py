"""Kernels in C for CPUs, built by the system's compiler; without one the reference serves.

The layers of a decoder run in C as a whole (`engine.executors.native_decoder`).
"""
