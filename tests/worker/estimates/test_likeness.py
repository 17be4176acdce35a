"""What the rows of a job have in common."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.estimates.likeness import ROWS, Likeness, digest

TEMPLATE = "Summarize this review in one sentence:\n\n"


def chat(user: Any, system: str | None = None) -> dict[str, Any]:
    messages = [{"role": "user", "content": user}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages}


def common(*bodies: dict[str, Any]) -> str:
    likeness = Likeness()
    for body in bodies:
        likeness.add(body)
    return likeness.text


def test_a_template_is_what_all_rows_begin_with() -> None:
    monday = common(chat(TEMPLATE + "The bag broke."), chat(TEMPLATE + "The bag is fine."))
    tuesday = common(chat(TEMPLATE + "A lamp."), chat(TEMPLATE + "A lamb."))
    # Words that begin alike by chance are part of it only where they are whole.
    assert TEMPLATE in common(chat(TEMPLATE + "Red."), chat(TEMPLATE + "Rust."))
    assert monday.startswith("\0" + TEMPLATE)
    assert tuesday.startswith("\0" + TEMPLATE)


def test_a_system_message_tells_jobs_apart() -> None:
    one = common(chat("a", "Answer yes or no."), chat("b", "Answer yes or no."))
    assert one == common(chat("c", "Answer yes or no."), chat("d", "Answer yes or no."))
    assert one != common(chat("a", "Write a poem."), chat("b", "Write a poem."))


def test_completions_have_templates_too() -> None:
    assert common({"prompt": "Translate: cat"}, {"prompt": "Translate: dog"}) == "\0Translate: "


@pytest.mark.parametrize(
    "bodies",
    [
        [],
        [{}],
        [chat("Why is it so?"), chat("What is it?")],
        [{"prompt": [1, 2]}, {"prompt": [1, 2]}],
        [{"messages": "x"}, {"messages": [7, None]}],
        [chat(None), chat([{"type": "text"}])],
    ],
)
def test_rows_that_have_hardly_anything_in_common(bodies: list[dict[str, Any]]) -> None:
    assert common(*bodies) == ""


@given(st.lists(st.text(max_size=30), min_size=2, max_size=2 * ROWS))
def test_it_is_short_and_begins_every_row_that_was_looked_at(texts: list[str]) -> None:
    found = common(*(chat(TEMPLATE + text) for text in texts)).removeprefix("\0")
    assert all((TEMPLATE + text).startswith(found) for text in texts[:ROWS])


def test_without_a_template_the_inputs_name_counts_but_not_its_date() -> None:
    assert digest("", "reviews-2026-11-26.txt") == digest("", "reviews-2026-11-27.txt")
    assert digest("", "reviews.txt") != digest("", "mails.txt")
    assert digest("x", "reviews.txt") == digest("x", "mails.txt")
    assert digest("x", "a") != digest("y", "a")
