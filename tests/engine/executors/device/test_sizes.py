"""What steps are rounded up to: few sizes, little padding."""

import pytest

from engine.executors.device.sizes import all_sizes, padded_sequences, padded_tokens


@pytest.mark.parametrize("padded", [padded_sequences, padded_tokens])
@pytest.mark.parametrize("most", [1, 3, 100, 1024, 8192])
def test_a_size_holds_the_number_and_never_shrinks(padded: object, most: int) -> None:
    assert callable(padded)
    sizes = [padded(count, most) for count in range(most + 1)]
    assert all(count <= size <= most for count, size in enumerate(sizes))
    assert sizes == sorted(sizes)
    assert all(padded(size, most) == size for size in sizes)


def test_padding_is_less_than_a_quarter_from_32_sequences_on() -> None:
    for count in range(33, 1025):
        assert padded_sequences(count, 1024) < 1.25 * count


def test_there_are_few_sizes() -> None:
    assert all_sizes(8) == [1, 2, 4, 8]
    assert all_sizes(6) == [1, 2, 4, 6]
    sizes = all_sizes(1024)
    assert sizes[:9] == [1, 2, 4, 8, 16, 24, 32, 40, 48]
    assert sizes[-1] == 1024
    assert len(sizes) < 50
    assert len({padded_tokens(count, 8192) for count in range(1, 2049)}) < 40
