"""How one token is drawn from a row of logits: temperature, top-k, top-p, min-p, and a number."""

import numpy as np
from numpy.typing import NDArray

# ``draw`` of sampling.c. Temperature 0 takes the argmax; top_k 0 and top_p 1 keep all.
DRAW = np.dtype(
    [
        ("temperature", np.float32),
        ("top_p", np.float32),
        ("min_p", np.float32),
        ("uniform", np.float32),
        ("top_k", np.int32),
    ]
)
Draws = NDArray[np.void]
Tokens = NDArray[np.int64]
