"""Compute kernels: typed public functions over interchangeable implementations."""
