"""The GGUF reader and dequantization, with the `gguf` package as writer and oracle."""

from pathlib import Path

import gguf as oracle
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.catalog import resolve
from engine.errors import CheckpointError
from engine.gguf import DECODABLE, LAYOUT, GGMLType, GGUFFile, dequantize


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file with metadata of every kind and three tensors."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = oracle.GGUFWriter(path, "llama")
    writer.add_uint8("a.uint8", 255)
    writer.add_int16("a.int16", -3)
    writer.add_uint64("a.uint64", 2**40)
    writer.add_float32("a.float32", 0.5)
    writer.add_float64("a.float64", 1e-300)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "naïve 日本 😀")
    writer.add_array("a.strings", ["", "Ġa", "é\n"])
    writer.add_array("a.ints", [1, -2, 3])
    generator = np.random.default_rng(0)
    writer.add_tensor("plain", generator.standard_normal((3, 5), np.float32))
    writer.add_tensor("half", generator.standard_normal((2, 4, 32), np.float32).astype(np.float16))
    packed = oracle.quantize(
        generator.standard_normal((4, 64), np.float32), oracle.GGMLQuantizationType.Q4_1
    )
    writer.add_tensor("packed", packed, raw_dtype=oracle.GGMLQuantizationType.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_has_python_values(small: Path) -> None:
    with GGUFFile(small) as file:
        metadata = dict(file.metadata)
    assert metadata["general.architecture"] == "llama"
    assert metadata["a.uint8"] == 255
    assert metadata["a.int16"] == -3
    assert metadata["a.uint64"] == 2**40
    assert metadata["a.float32"] == 0.5
    assert metadata["a.float64"] == 1e-300
    assert metadata["a.bool"] is True
    assert metadata["a.string"] == "naïve 日本 😀"
    assert metadata["a.strings"] == ["", "Ġa", "é\n"]
    assert metadata["a.ints"].tolist() == [1, -2, 3]


def test_the_header_of_an_open_file_is_read_once_and_that_of_another_anew(
    small: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(small.read_bytes())
    with GGUFFile(path) as first, GGUFFile(path) as second:
        assert second.metadata is first.metadata
        assert second.tensors is first.tensors
        path.unlink()
        path.write_bytes(small.read_bytes().replace(b"llama", b"lemma"))
        with GGUFFile(path) as other:
            assert other.metadata["general.architecture"] == "lemma"
        assert first.metadata["general.architecture"] == "llama"


def test_tensors_are_row_major_and_read_as_written(small: Path) -> None:
    generator = np.random.default_rng(0)
    with GGUFFile(small) as file:
        assert list(file.tensors) == ["plain", "half", "packed"]
        assert file.tensors["half"].shape == (2, 4, 32)
        assert file.tensors["packed"].type is GGMLType.Q4_1
        plain = dequantize(file.raw("plain"), GGMLType.F32, file.tensors["plain"].shape)
    np.testing.assert_array_equal(plain, generator.standard_normal((3, 5), np.float32))


def test_raw_is_a_read_only_view_that_outlives_the_file(small: Path) -> None:
    file = GGUFFile(small)
    view = file.raw("plain")
    before = view.copy()
    file.close()
    np.testing.assert_array_equal(view, before)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    with pytest.raises(CheckpointError, match="closed"):
        file.raw("plain")


def test_missing_tensor_is_named(small: Path) -> None:
    with GGUFFile(small) as file, pytest.raises(CheckpointError, match=r"no tensor 'other'"):
        file.raw("other")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"GG", "truncated"),
        (b"PK\x03\x04" * 9, "not a GGUF file"),
        (b"GGUF\x01\x00\x00\x00" + bytes(64), "version 1"),
        (b"GGUF\x00\x00\x00\x03" + bytes(64), "big-endian"),
        (b"GGUF\x03\x00\x00\x00" + b"\xff" * 64, "truncated"),
    ],
)
def test_files_that_are_not_readable(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "wrong.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        GGUFFile(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        GGUFFile(tmp_path / "none.gguf")


def test_one_part_of_several_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "part.gguf"
    writer = oracle.GGUFWriter(path, "llama")
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="one part of 3"):
        GGUFFile(path)


def test_every_truncation_is_noticed(small: Path, tmp_path: Path) -> None:
    content = small.read_bytes()
    path = tmp_path / "cut.gguf"
    for length in range(1, len(content) - 32, 7):  # up to 31 bytes of padding may end the file
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            GGUFFile(path)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.lists(st.tuples(st.integers(0, 900), st.binary(min_size=1, max_size=9))))
def test_damage_never_escapes_as_another_error(
    small: Path, tmp_path: Path, changes: list[tuple[int, bytes]]
) -> None:
    content = bytearray(small.read_bytes())
    for position, replacement in changes:
        content[position : position + len(replacement)] = replacement
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    try:
        file = GGUFFile(path)
    except CheckpointError:
        return
    for tensor in file.tensors.values():
        assert file.raw(tensor.name).size == tensor.nbytes


@pytest.mark.parametrize("kind", sorted(DECODABLE - {GGMLType.F64}), ids=lambda kind: kind.name)
def test_dequantize_equals_the_reference_bit_for_bit(kind: GGMLType) -> None:
    layout = LAYOUT[kind]
    rows, width = 5, 768
    raw = np.random.default_rng(1).integers(
        0, 256, (rows, width // layout.values * layout.nbytes), np.uint8
    )
    with np.errstate(all="ignore"):  # random bytes hold infinities and NaNs
        expected = oracle.dequantize(raw, oracle.GGMLQuantizationType(kind))
        actual = dequantize(raw.reshape(-1), kind, (rows, width))
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, expected)


def test_dequantize_crosses_windows() -> None:
    values = np.random.default_rng(2).standard_normal((300, 1024), np.float32)
    raw = oracle.quantize(values, oracle.GGMLQuantizationType.Q8_0)
    decoded = dequantize(raw.reshape(-1), GGMLType.Q8_0, values.shape)
    np.testing.assert_allclose(decoded, values, atol=0.03)


def test_dequantize_refuses_what_it_cannot_do() -> None:
    with pytest.raises(CheckpointError, match="IQ2_S"):
        dequantize(np.zeros(82, np.uint8), GGMLType.IQ2_S, (256,))
    with pytest.raises(CheckpointError, match="takes 40 bytes, not 39"):
        dequantize(np.zeros(39, np.uint8), GGMLType.Q4_1, (2, 32))


def test_the_embedded_model_reads_as_the_reference_reads_it() -> None:
    path = resolve("smollm2").gguf
    assert path is not None
    reference = {tensor.name: tensor for tensor in oracle.GGUFReader(path).tensors}
    with GGUFFile(path) as file:
        assert list(file.tensors) == list(reference)
        for name in ("blk.0.attn_norm.weight", "blk.7.ffn_down.weight", "token_embd.weight"):
            tensor, expected = file.tensors[name], reference[name]
            actual = dequantize(file.raw(name), tensor.type, tensor.shape)
            np.testing.assert_array_equal(
                actual, oracle.dequantize(expected.data, expected.tensor_type)
            )
