"""Every kernel in plain torch: for devices without kernels of their own, and the tests' oracle."""
