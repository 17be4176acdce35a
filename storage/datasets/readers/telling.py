"""The line that tells what JSON lines are; and where there is none, what is wrong with them."""

from typing import Any

from storage.datasets.readers.json_lines import json_value
from storage.datasets.readers.sample import Sample
from storage.datasets.readers.unpacked import open_unpacked
from storage.datasets.values.requests import is_request
from storage.datasets.values.rows import prompt_of, why_no_prompt
from storage.datasets.values.sources import EXPECTED, Kind, Source
from storage.streams.json_faults import json_fault, json_kind
from storage.streams.jsonl import read_lines

_FORMS = (
    (
        {"custom_id", "params"},
        "These are lines of Anthropic's batches. For OpenAI's: jq -c '{custom_id, "
        'method: "POST", url: "/v1/chat/completions", body: .params}\'',
    ),
    (
        {"recordId", "modelInput"},
        "These are lines of Bedrock's batches. For OpenAI's: jq -c '{custom_id: .recordId, "
        'method: "POST", url: "/v1/chat/completions", body: .modelInput}\'',
    ),
    ({"body", "url"}, "A request needs a custom_id beside its body, which is an object."),
    ({"custom_id", "url"}, "A request needs a body, which is an object."),
)


def first_telling(source: Source) -> tuple[int, dict[str, Any], Kind] | None:
    """The first line that is a request or has a prompt: its number, its fields, and which it is.

    The whole file is looked through where the first lines are neither. A row with the field that
    the user named is data, whatever else it holds.

    Raises:
        InputNotUnderstood: the file is damaged or holds more than the limit.
    """
    limits = source.limits
    with open_unpacked(source.file, source.name, limits) as stream:
        for line in read_lines(stream, max_line_bytes=limits.max_line_bytes):
            try:
                fields = json_value(line.data)
            except (ValueError, RecursionError):
                continue
            if not isinstance(fields, dict):
                continue
            has_prompt = prompt_of(fields, source.column) is not None
            if has_prompt and (source.column or source.asked):
                return line.number, fields, Kind.JSONL
            if is_request(fields) and not source.asked:
                return line.number, fields, Kind.REQUESTS
            if has_prompt:
                return line.number, fields, Kind.JSONL
    return None


def why_nothing_tells(source: Source, sample: Sample) -> str:
    """What is wrong with a file of JSON of which no line is a request or has a prompt."""
    number, line = sample.lines[0]
    shown = f"Line {number}: {Sample.shown(line)}"
    if sample.is_document or (
        isinstance(sample.first, list) and any(isinstance(item, dict) for item in sample.first)
    ):
        each = "'.[]'" if sample.first_text.lstrip().startswith("[") else "."
        return (
            f"{source.name} is one JSON document, not a line for each row; "
            f"make lines of it: jq -c {each} FILE > lines.jsonl\n{shown}"
        )
    if sample.begins_as_python:
        return (
            f"{source.name} holds dicts as Python prints them, with single quotes, which are not "
            f"JSON; json.dumps writes that.\n{shown}"
        )
    if not sample.objects:
        return f"{source.name} {_no_object(sample, number, line)}\n{shown}\n{EXPECTED}"
    names = sample.objects[0].keys()
    form = next((text for keys, text in _FORMS if keys <= names), None)
    reason = form or why_no_prompt(sample.objects[0], source.column)
    expected = "" if form else f"\n{EXPECTED}"
    wanted = f"the field {source.column!r}" if source.column else "a prompt"
    return (
        f"{source.name} looks like JSON, but no line of it holds {wanted} or a whole request. "
        f"{reason}\n{shown}{expected}"
    )


def _no_object(sample: Sample, number: int, line: bytes) -> str:
    """What the first line is instead of an object."""
    if fault := json_fault(line):
        return f"is meant as JSON lines, but line {number} is not JSON: {fault}."
    kind = json_kind(sample.first)
    lines = " Lines of {\"prompt\"} are made by: jq -c '{prompt: .}'" if kind == "a string" else ""
    return f"looks like JSON, but line {number} is {kind}, not an object.{lines}"
