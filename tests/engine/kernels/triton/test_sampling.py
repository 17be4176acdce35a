"""Sampling on the device: the oracle against plain definitions, Triton's kernels against both."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from engine.kernels.fused.sampling import REPORT_IDS, Column
from engine.kernels.reference.device_sampling import gumbel, token_hash
from kernels.sampled import CPU, DEVICE, GPU, ORACLE, TRITON, Ask, Rows, drawn

# The interpreter computes with numpy, which warns of what a device does silently.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in .*:RuntimeWarning")


def chi_square(counts: Tensor, expected: Tensor) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


# -- the hash and the noise ------------------------------------------------------------------------


def test_the_hash_is_the_published_one() -> None:
    def split_mix(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    # The first output of SplitMix64 from state 0, as its authors' code gives it.
    assert split_mix(0) == 0xE220A8397B1DCDAF
    row = split_mix(5 + split_mix(9))
    low, high = row % 2**32, row >> 32
    x = (3 * 0x9E3779B9 + low) % 2**32
    x = ((x ^ x >> 16) * 0x7FEB352D + high) % 2**32
    x = (x ^ x >> 15) * 0x846CA68B % 2**32
    assert token_hash(5, 9, 4, CPU)[3] == x ^ x >> 16


def test_hashes_of_neighbours_spread_evenly() -> None:
    rows = [token_hash(seed, position, 64, CPU) for seed in range(8) for position in range(64)]
    hashes = torch.stack(rows)  # 32,768 numbers
    for shift in (0, 12, 24):
        counts = torch.bincount((hashes >> shift & 255).flatten(), minlength=256)
        assert chi_square(counts, torch.full((256,), 128.0)) < 340  # 255 degrees: 1 in 3,000
    for lag in (1, 64):  # the next token, the next position
        bits = (hashes.flatten()[lag:] ^ hashes.flatten()[:-lag]) & 255
        counts = torch.bincount(bits, minlength=256)
        assert chi_square(counts, counts.sum() / 256 * torch.ones(256)) < 340


def test_noise_has_gumbel_s_distribution() -> None:
    noise = torch.cat([gumbel(7, position, 5000, CPU) for position in range(20)]).double()
    quantiles = torch.arange(1, 16) / 16
    limits = -(-quantiles.log()).log()
    counts = torch.histc(torch.bucketize(noise, limits.double()).double(), 16, 0, 15)
    assert chi_square(counts, torch.full((16,), 6250.0)) < 37.7  # 15 degrees: 1 in 1,000


# -- draws from whole rows -------------------------------------------------------------------------

LOGITS = torch.log(torch.tensor([0.4, 0.3, 0.15, 0.1, 0.04, 0.01]))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_many_draws_follow_the_distribution(temperature: float) -> None:
    rows = 4000
    asks = [Ask(temperature, seed=row % 7, position=row // 7, slot=row) for row in range(rows)]
    # The oracle draws as Triton does; where there is a device, it draws them all.
    tested = Rows(LOGITS.repeat(rows, 1), asks, DEVICE)
    tokens = torch.tensor(tested.draw(TRITON if GPU else ORACLE))
    expected = torch.softmax(LOGITS.double() / temperature, 0) * rows
    assert chi_square(torch.bincount(tokens, minlength=6), expected) < 20.5  # 5 degrees: 1 in 1,000


@pytest.mark.parametrize("vocab", [1, 7, 1003, 4097])
def test_plain_draws_are_the_oracle_s_token_for_token(vocab: int) -> None:
    logits = torch.randn(12, vocab) * 3
    asks = [
        Ask([0, 1, 0.3, 2][row % 4], seed=row**17 - 2**60, position=row * 1000) for row in range(12)
    ]
    tokens = drawn(logits, asks)
    assert [tokens[row] for row in (0, 4, 8)] == logits[[0, 4, 8]].argmax(-1).tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_the_model_s_dtype_are_drawn_from(dtype: torch.dtype) -> None:
    logits = (torch.randn(6, 300) * 3).to(dtype)
    drawn(logits, [Ask(row % 2, seed=row, top_p=0.8 if row == 3 else 1) for row in range(6)])


def test_greedy_takes_the_first_of_equal_ones_and_never_a_nan() -> None:
    logits = torch.zeros(6, 5000)
    logits[1, [4999, 4096, 2000]] = 2.0
    logits[2] = -torch.inf
    logits[3, 10], logits[3, 20] = torch.nan, 1.0
    logits[4] = torch.nan
    logits[5, 7], logits[5, 4500] = 1e38, torch.inf
    assert drawn(logits, [Ask(0)] * 6) == [0, 2000, 0, 20, 0, 4500]


def test_draws_never_take_what_is_banned_or_not_a_number() -> None:
    logits = torch.full((8, 70), -torch.inf)
    logits[:, 3], logits[:, 60], logits[:, 61] = 0.0, -1.0, torch.nan
    tokens = drawn(logits, [Ask(seed=row) for row in range(8)])
    assert set(tokens) == {3, 60}


def test_a_draw_is_the_same_in_any_batch_and_slot_and_beside_filters() -> None:
    logits = torch.randn(4, 500)
    alone = drawn(logits[1:2], [Ask(seed=5, position=9)])
    beside = [Ask(0), Ask(seed=5, position=9, slot=7), Ask(top_k=3), Ask(slot=-1)]
    assert Rows(logits, beside).draw(TRITON)[1] == alone[0]
    beside[2] = Ask(seed=5, position=9, slot=2)
    turned = Rows(logits[[0, 2, 1, 3]], beside).draw(TRITON)
    assert turned[2] == alone[0]


@pytest.mark.parametrize("filtered", [False, True])
def test_padding_writes_nothing(filtered: bool) -> None:
    logits = torch.randn(4, 100)
    ask = Ask(top_k=2 if filtered else 0, reported=2)
    rows = Rows(logits, [Ask(slot=-1), ask, Ask(slot=-1), Ask(slot=-1)])
    tokens = rows.draw(TRITON)
    TRITON.report(rows.rows, rows.state, rows.room, rows.report)
    assert [tokens[row] for row in (0, 2, 3)] == [-7, -7, -7]
    assert rows.state.last_tokens.tolist() == [-9, tokens[1]]
    assert (rows.report[[0, 2, 3]] == -3).all()


# -- log-probabilities -----------------------------------------------------------------------------


def test_reports_are_log_softmax_of_the_raw_logits_best_first() -> None:
    logits = torch.randn(4, 4500) * 4
    logits[1] = logits[1].round()  # many are equal: lower ids first
    logits[2, 5:] = -torch.inf
    asks = [Ask(reported=n) for n in (20, 20, 7, 0)]
    rows = Rows(logits, asks)
    tokens = rows.draw(TRITON)
    TRITON.report(rows.rows, rows.state, rows.room, rows.report)
    raw = torch.log_softmax(logits.double(), -1)
    for row, ask in enumerate(asks):
        values = rows.report[row].cpu().view(torch.float32)
        ranked, ids = raw[row].sort(descending=True, stable=True)
        assert values[0].item() == pytest.approx(raw[row, tokens[row]].item(), abs=1e-5)
        found = rows.report[row, REPORT_IDS:].tolist()
        assert found[: ask.reported] == ids[: ask.reported].tolist()
        assert found[ask.reported :] == [-3] * (20 - ask.reported)
        torch.testing.assert_close(
            values[1 : 1 + ask.reported].double(), ranked[: ask.reported], rtol=0, atol=1e-5
        )


# -- penalties, biases, bans -----------------------------------------------------------------------


def test_adjusted_rows_are_drawn_from_as_the_oracle_does() -> None:
    vocab, found = 300, []
    logits = torch.randn(6, vocab) * 2
    counts = torch.zeros(2, vocab, dtype=torch.int32)
    counts[0, :40], counts[0, 30:60], counts[1, ::3] = 1 << 30, 2, (1 << 30) + 1
    for kernels, device in ((TRITON, DEVICE), (ORACLE, CPU)):
        asks = [Ask(0), Ask(), Ask(top_k=30), Ask(0, position=4), Ask(0, position=5), Ask()]
        rows = Rows(logits, asks, device)
        rows.state.counts.copy_(counts)
        lists = torch.zeros(2, 16, dtype=torch.int32)
        lists[1, :5] = torch.tensor([7, 299, 8, 9, 290])
        lists[1, 8:10] = torch.tensor([9.0, 12.0]).view(torch.int32)
        rows.state.lists.copy_(lists)
        words, reals = rows.state.table, rows.state.table.view(torch.float32)
        words[:3, Column.COUNT_ROW] = torch.tensor([0, 1, 1], device=device)
        reals[:3, Column.REPETITION] = 1.5
        reals[:3, Column.FREQUENCY], reals[:3, Column.PRESENCE] = 0.7, -0.4
        words[2:5, Column.LIST_ROW] = 1
        words[2:5, Column.BIASED], words[2:5, Column.BANNED] = 2, 3
        words[2:5, Column.FREE_FROM] = 5
        rows.rows.logits[3:5, 8] = 30.0  # banned at position 4 alone
        tokens = rows.draw(kernels, adjusted=True)
        found.append((tokens, rows.state.counts.cpu()))
    (tokens, after), (expected, expected_after) = found
    assert tokens == expected
    assert tokens[3:5] == [299, 8]
    assert torch.equal(after, expected_after)
    changed = (after - counts).nonzero().tolist()
    assert changed == sorted([0, tokens[0]] if n == 0 else [1, tokens[n]] for n in range(3))
