"""The judge of a finished job. It knows the input, the two files and what the API says: no more.

`judge` is a pure function of the `Evidence`; `collect` gathers that over HTTP, with nothing of the
product's own code.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

Body = dict[str, Any]
TERMINAL = frozenset({"completed", "failed", "cancelled", "expired"})
SHOWN = 5
# An error that a line may get for what happened to its batch, by the batch's last status.
NEVER_RUN = {"cancelled": "batch_cancelled", "expired": "batch_expired"}


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A result file as the API describes and serves it."""

    size: int
    etag: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Of what was downloaded."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def ids(self) -> set[str]:
        """The custom_ids of its lines."""
        return {line["custom_id"] for line in _lines(self.content)}


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of one job after its end.

    Attributes:
        input: the input file's bytes.
        batch: the batch object as JSON.
        output, errors: the result files, ``None`` where the batch names none.
        refusals: custom_id → the code of the error that the line must end with, where the line
            itself is at fault.
        foreign: (what was asked for, status) of every look by somebody who must not see the job.
        earlier: the hashes of both files at an earlier look, which must be the same.
    """

    input: bytes
    batch: Mapping[str, Any]
    output: ResultFile | None
    errors: ResultFile | None
    refusals: Mapping[str, str] = field(default_factory=dict)
    foreign: Sequence[tuple[str, int]] = ()
    earlier: tuple[str | None, str | None] | None = None

    @property
    def hashes(self) -> tuple[str | None, str | None]:
        """Of both files; for a later look."""
        output, errors = self.output, self.errors
        return (output.sha256 if output else None, errors.sha256 if errors else None)


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, and for how many lines (or otherwise how many times)."""

    kind: str
    batch: str
    count: int
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `judge` found. ``false_poison`` counts lines that were blamed for crashes in vain."""

    lines: int
    answered: int
    false_poison: int
    violations: tuple[Violation, ...]


def judge(evidence: Evidence, answer: Callable[[Body], str | None]) -> Verdict:
    """Check every promise about a job.

    Args:
        evidence: of a job that should be over.
        answer: what the model must say to a request's body; ``None`` where nothing is foretold.
    """
    return _Judge(evidence, answer).verdict()


class _Judge:
    def __init__(self, evidence: Evidence, answer: Callable[[Body], str | None]) -> None:
        self._evidence = evidence
        self._answer = answer
        self._input = {str(line["custom_id"]): line for line in _lines(evidence.input)}
        self._place = {custom_id: place for place, custom_id in enumerate(self._input)}
        self._output = _lines(evidence.output.content if evidence.output else b"")
        self._errors = _lines(evidence.errors.content if evidence.errors else b"")
        self._found: list[Violation] = []
        self._false_poison = 0

    def verdict(self) -> Verdict:
        self._check_status()
        self._check_once()
        self._check_order()
        self._check_counts()
        self._check_usage()
        self._check_answers()
        self._check_errors()
        self._check_files()
        seen = [f"{what} ({status})" for what, status in self._evidence.foreign if status != 404]
        self._report("tenant", seen)
        return Verdict(len(self._input), len(self._output), self._false_poison, tuple(self._found))

    def _report(self, kind: str, items: Iterable[object]) -> None:
        items = list(items)
        if items:
            detail = ", ".join(map(str, items[:SHOWN])) + (" …" if len(items) > SHOWN else "")
            batch = str(self._evidence.batch["id"])
            self._found.append(Violation(kind, batch, len(items), detail))

    def _check_status(self) -> None:
        status = self._evidence.batch["status"]
        if status not in TERMINAL or status == "failed":
            self._report("status", [f"{status}, {self._evidence.batch.get('errors')}"])

    def _check_once(self) -> None:
        seen = Counter(line["custom_id"] for line in (*self._output, *self._errors))
        self._report("lost", [custom_id for custom_id in self._input if not seen[custom_id]])
        self._report("double", [custom_id for custom_id, times in seen.items() if times > 1])
        self._report("unknown", [custom_id for custom_id in seen if custom_id not in self._input])
        ids = Counter(line["id"] for line in (*self._output, *self._errors))
        self._report("line ids", [line_id for line_id, times in ids.items() if times > 1])

    def _check_order(self) -> None:
        for lines in (self._output, self._errors):
            places = [self._place.get(line["custom_id"], -1) for line in lines]
            steps = itertools.pairwise(places)
            self._report("order", [f"{b} after {a}" for a, b in steps if b < a])

    def _check_counts(self) -> None:
        counts = self._evidence.batch["request_counts"]
        told = (counts["total"], counts["completed"], counts["failed"])
        held = (len(self._input), len(self._output), len(self._errors))
        if told != held:
            self._report("counts", [f"told {told}, held {held}"])

    def _check_usage(self) -> None:
        usage = self._evidence.batch["usage"]
        if not usage and not self._output:
            return
        lines = [line["response"]["body"]["usage"] for line in self._output]
        held = tuple(sum(line[key] for line in lines) for key in _USAGE)
        told = usage and (usage["input_tokens"], usage["output_tokens"])
        if told != held:
            self._report("usage", [f"told {told}, held {held}"])

    def _check_answers(self) -> None:
        wrong = []
        for line in self._output:
            asked = self._input.get(line["custom_id"])
            body = line["response"]["body"]
            if asked is None:
                continue  # reported as unknown
            expected = self._answer(asked["body"])
            if (
                line["error"] is not None
                or line["response"]["status_code"] != 200
                or line["custom_id"] in self._evidence.refusals
                or body["model"] != asked["body"]["model"]
                or (expected is not None and _text(body) != expected)
            ):
                wrong.append(f"{line['custom_id']}: {_text(body)[:60]!r}, not {expected!r:.60}")
        self._report("answer", wrong)

    def _check_errors(self) -> None:
        excuse = NEVER_RUN.get(self._evidence.batch["status"])
        wrong = []
        for line in self._errors:
            code = _code(line)
            wanted = self._evidence.refusals.get(line["custom_id"])
            if code == wanted or (code == excuse and line["response"] is None):
                continue
            if code == "engine_crashed":
                self._false_poison += 1
                continue
            wrong.append(f"{line['custom_id']}: {code}, not {wanted or 'an answer'}")
        self._report("error", wrong)

    def _check_files(self) -> None:
        evidence = self._evidence
        for name, file in (("output", evidence.output), ("errors", evidence.errors)):
            named = evidence.batch["output_file_id" if name == "output" else "error_file_id"]
            if (named is None) != (file is None) or (file and not file.content):
                self._report("hash", [f"{name}: an empty file, or one that is not named"])
            if file and file.size != len(file.content):
                self._report("hash", [f"{name}: {file.size} bytes told, {len(file.content)} sent"])
            if file and file.etag != file.sha256:
                self._report("hash", [f"{name}: the ETag is not the content's SHA-256"])
        if evidence.earlier not in (None, evidence.hashes):
            self._report("hash", [f"{evidence.earlier} became {evidence.hashes}"])


_USAGE = ("prompt_tokens", "completion_tokens")


def _lines(content: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in content.splitlines()]


def _text(body: Body) -> str:
    choice = body["choices"][0]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def _code(line: dict[str, Any]) -> str:
    error = line["error"] or line["response"]["body"]["error"]
    return str(error["code"])
