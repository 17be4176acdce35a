"""Every backend computes what the protocol says, and the same as the others."""

import numpy as np
import pytest
import torch

from engine.config import ModelConfig, RopeConfig
from engine.kernels.backend import Backend
from engine.kernels.draws import DRAW
from engine.kernels.hadamard import rotate_rows
from engine.kernels.native.backend import NativeBackend
from engine.kernels.native.cache import NativeCache
from engine.kernels.reference.backend import ReferenceBackend
from engine.kernels.sampling import draw
from native import needs_kernels

CPU = torch.device("cpu")
MODEL = ModelConfig(
    family="llama",
    vocab_size=197,
    hidden_size=96,
    intermediate_size=160,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=16,
    max_position=256,
    rms_norm_eps=1e-5,
    rope=RopeConfig(),
    tie_embeddings=False,
)
REFERENCE: Backend = ReferenceBackend()
NATIVE: Backend = NativeBackend(2)
BOTH = pytest.mark.parametrize("backend", [REFERENCE, NATIVE], ids=lambda backend: backend.name)


@BOTH
def test_a_backend_has_every_function_of_the_protocol(backend: Backend) -> None:
    wanted = {name for name in vars(Backend) if not name.startswith("_")}
    assert {"draw", "rotate_rows", "paged_attention", "obstacle"} < wanted
    assert all(hasattr(backend, name) for name in wanted)


def test_names_say_who_computes() -> None:
    assert (REFERENCE.name, NATIVE.name) == ("reference", "native")
    assert NATIVE.device_types == {"cpu"}


@needs_kernels
def test_both_draw_the_same() -> None:
    vocab, count = 5000, 64
    logits = torch.randn(count, vocab, generator=torch.Generator().manual_seed(1)) * 3
    draws = np.zeros(count, dtype=DRAW)
    draws["temperature"] = np.resize([0, 0.7, 1.0], count)
    draws["top_p"] = np.resize([1, 0.95], count)
    draws["top_k"] = np.resize([0, 40, 1, 300, 0], count)
    draws["uniform"] = np.random.default_rng(5).random(count)
    ours, theirs = draw(NATIVE, logits, draws), draw(REFERENCE, logits, draws)
    assert (ours == theirs).mean() > 0.9, "rounding decides a few"
    cold = draws["temperature"] == 0
    assert (ours[cold] == theirs[cold]).all()


@needs_kernels
def test_rows_of_any_length_and_number_may_be_drawn_in_turn() -> None:
    for vocab, rows in ((50, 1), (3000, 7), (50, 3)):
        logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(vocab))
        found = draw(NATIVE, logits, np.zeros(rows, dtype=DRAW))
        assert found.tolist() == logits.argmax(-1).tolist()


@needs_kernels
def test_logits_that_c_cannot_take_are_drawn_all_the_same() -> None:
    logits = torch.randn(6, 80)[:, :40]
    found = draw(NATIVE, logits, np.zeros(6, dtype=DRAW))
    assert found.tolist() == logits.argmax(-1).tolist()


@needs_kernels
@pytest.mark.parametrize("width", [8, 16, 96, 576, 720])
def test_both_rotate_rows_alike(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    odd = width // (width & -width)
    matrix = torch.linalg.qr(torch.randn(odd, odd, generator=generator))[0].contiguous()
    by = torch.randn(width, generator=generator)
    x = torch.randn(5, width, generator=generator)
    expected = rotate_rows(REFERENCE, x.clone(), by, matrix)
    torch.testing.assert_close(rotate_rows(NATIVE, x.clone(), by, matrix), expected)
    torch.testing.assert_close(expected.norm(dim=1), (x * by).norm(dim=1))


@BOTH
def test_rotations_that_do_not_fit_are_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match="matrix must be of shape"):
        rotate_rows(backend, torch.ones(2, 48), torch.ones(48), torch.ones(3, 2))
    with pytest.raises(ValueError, match="3 times a power of two"):
        rotate_rows(backend, torch.ones(2, 60), torch.ones(60), torch.eye(3))
    with pytest.raises(ValueError, match="x must be of shape"):
        rotate_rows(backend, torch.ones(2, 50), torch.ones(48), torch.eye(3))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_a_block_takes_what_the_cache_is_allocated_for(dtype: torch.dtype) -> None:
    one, three = (NativeCache(MODEL, count, 32, dtype)._memory.nbytes for count in (1, 3))
    assert NATIVE.block_bytes(MODEL, 32, dtype) == (three - one) // 2 == one
    plain = 32 * MODEL.kv_bytes_per_token(dtype.itemsize)
    assert REFERENCE.block_bytes(MODEL, 32, dtype) == plain
