"""The mark of tests that need the kernels in C."""

import pytest

from engine.kernels.native.library import available

# Where there is a compiler, engine/kernels/test_native_build.py fails if they are not built.
needs_kernels = pytest.mark.skipif(not available(), reason="the kernels in C are not built here")
