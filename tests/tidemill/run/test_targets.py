"""Results never overwrite the input or each other, and what cannot be written is said first."""

import socket
from pathlib import Path

import pytest

from storage.datasets.values.sources import Kind
from tidemill.errors import TidemillError, UsageError
from tidemill.run.targets import check_target, check_targets, plan_target


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "x.output.jsonl"
    path.write_text('{"prompt": "a"}\n')
    return path


@pytest.mark.parametrize(
    ("output", "output_name", "errors_name"),
    [
        (None, "dir/in.output.jsonl", "dir/in.errors.jsonl"),
        ("out/x.jsonl", "out/x.jsonl", "out/x.errors.jsonl"),
        ("-", "-", "dir/in.errors.jsonl"),
        ("x.parquet", "x.parquet", None),
        ("/dev/stdout", "-", "dir/in.errors.jsonl"),
        ("/dev/null", "/dev/null", "dir/in.errors.jsonl"),
        ("/dev", "/dev/in.output.jsonl", "/dev/in.errors.jsonl"),
        (".", "in.output.jsonl", "in.errors.jsonl"),
    ],
)
def test_names_that_the_user_left_open(
    output: str | None, output_name: str, errors_name: str | None
) -> None:
    target = plan_target(Path("dir/in.txt"), Kind.TEXT, output=Path(output) if output else None)
    assert str(target.output) == output_name
    assert target.errors == (Path(errors_name) if errors_name else None)


def test_an_input_that_is_an_earlier_output_is_not_overwritten(source: Path) -> None:
    target = plan_target(source, Kind.JSONL)
    check_target(target, source)
    assert target.output.name == "x.output.output.jsonl"
    assert target.errors is not None
    assert target.errors.name == "x.output.errors.jsonl"


@pytest.mark.parametrize(
    ("output", "errors", "both"),
    [
        ("x.output.jsonl", None, "The input and the output"),
        ("link", None, "The input and the output"),
        ("folder/x.output.jsonl", None, "The input and the output"),
        ("hard", None, "The input and the output"),
        ("new", "x.output.jsonl", "The input and the errors file"),
        ("new", "new", "The output and the errors file"),
        ("new", "folder/new", "The output and the errors file"),
        ("-", "-", "The output and the errors file"),
        ("/dev/stdout", "-", "The output and the errors file"),
    ],
)
def test_two_paths_of_one_file_are_refused(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    errors: str | None,
    both: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to(source)
    Path("hard").hardlink_to(source)
    Path("folder").symlink_to(tmp_path)
    target = plan_target(
        source, Kind.JSONL, output=Path(output), errors=Path(errors) if errors else None
    )
    with pytest.raises(UsageError, match=both):
        check_target(target, source)


@pytest.mark.parametrize(
    ("output", "errors", "kind", "message"),
    [
        ("socket", None, UsageError, "is no regular file"),
        ("missing/new", None, TidemillError, "there is no folder"),
        ("x.output.jsonl/new", None, TidemillError, "there is no folder"),
        ("new", "missing/new", TidemillError, "there is no folder"),
    ],
)
def test_what_cannot_be_written_is_refused(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    errors: str | None,
    kind: type[TidemillError],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    with pytest.raises(kind, match=message) as caught:
        check_target(
            plan_target(
                Path("in.txt"),
                Kind.TEXT,
                output=Path(output),
                errors=None if errors is None else Path(errors),
            ),
            source,
        )
    assert type(caught.value) is kind


def test_errors_may_have_a_folder_of_their_own(tmp_path: Path) -> None:
    target = plan_target(Path("dir/in.txt"), Kind.TEXT, errors=tmp_path)
    assert target.errors == tmp_path / "in.errors.jsonl"
    assert str(target.output) == "dir/in.output.jsonl"


def test_what_is_no_file_may_take_outputs_and_errors() -> None:
    null = Path("/dev/null")
    check_target(plan_target(Path("in.txt"), Kind.TEXT, output=null, errors=null), None)


def test_files_of_several_jobs_are_all_different(source: Path, tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("a.txt", "a.jsonl", "x.output.txt", "x.txt")]
    targets = [plan_target(name, Kind.TEXT) for name in names]
    check_targets([(targets[0], names[0]), (targets[3], names[3])])
    with pytest.raises(UsageError, match=r"output of .*a.txt and the output of .*a.jsonl"):
        check_targets([(targets[0], names[0]), (targets[1], names[1])])
    with pytest.raises(
        UsageError, match=r"input of .* and the output of .*x.txt are the same file"
    ):
        check_targets([(targets[2], source), (targets[3], names[3])])
    with pytest.raises(UsageError, match="the input of"):
        check_targets([(targets[0], source), (targets[1], source)])


def test_the_name_of_a_gzipped_input_gives_a_plain_output() -> None:
    target = plan_target(Path("data/in.jsonl.gz"), Kind.JSONL)
    assert target.output == Path("data/in.output.jsonl")
    assert target.errors == Path("data/in.errors.jsonl")
