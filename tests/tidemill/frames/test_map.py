"""`Client.map` on a real service with a real, tiny model."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import polars
import pyarrow as pa
import pytest

from integration.harness import tiny
from storage.registry import models
from storage.settings import Settings
from storage.stores import Stores
from tidemill import Client
from tidemill.client.shapes import Batch
from tidemill.errors import BatchFailed, InputChanged, InputError, UsageError
from tidemill.serve.service import Service

COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a whole service whose one model is tiny."""
    home = tmp_path_factory.mktemp("home")
    checkpoint = tiny.make_checkpoint(tmp_path_factory.mktemp("model") / "tiny")
    settings = Settings.load(home=home, port=0, default_model="tiny", env_file=None)
    stores = Stores.open(settings.storage)
    stores.database.migrate()
    models.add(stores.database, "tiny", str(checkpoint))
    stores.close()
    with Service(settings, announce=False) as service, Client(service.url) as client:
        yield client


def _answers(texts: list[str], limit: int) -> list[str | None]:
    return [tiny.answer({"prompt": text, "max_tokens": limit}) for text in texts]


def test_rows_get_their_answers_in_order(client: Client) -> None:
    words = tiny.WORDS[:6]
    frame = polars.DataFrame({"word": words, "n": range(6)})
    found = client.map(
        frame,
        "bada {{ word }}",
        endpoint=COMPLETIONS,
        model="tiny",
        temperature=0,
        max_tokens=5,
        progress=False,
    )
    assert found["n"].to_list() == list(range(6))
    assert found["answer"].to_list() == _answers([f"bada {word}" for word in words], 5)
    assert found["error"].null_count() == 6
    assert set(found["finish_reason"].to_list()) <= {"stop", "length"}


def test_a_row_that_cannot_be_asked_has_its_reason(client: Client) -> None:
    table = pa.table({"prompt": [tiny.WORDS[0], None, tiny.WORDS[1]]})
    found = client.map(table, endpoint=COMPLETIONS, model="tiny", max_tokens=2, progress=False)
    assert found["answer"].is_null().to_pylist() == [False, True, False]
    assert found["error"].is_null().to_pylist() == [True, False, True]


def test_a_named_job_is_run_once(client: Client) -> None:
    rows = [{"word": word} for word in tiny.WORDS[:3]]

    def ask(limit: int) -> object:
        return client.map(
            rows,
            "{{ word }}",
            endpoint=COMPLETIONS,
            model="tiny",
            temperature=1,
            max_tokens=limit,
            name="nightly",
            progress=False,
        )

    first = ask(4)
    before = [batch.id for batch in client.batches()]
    assert ask(4) == first
    assert [batch.id for batch in client.batches()] == before
    with pytest.raises(InputChanged, match="nightly"):
        ask(5)


def test_no_rows_are_no_job(client: Client) -> None:
    empty = pa.table({"prompt": pa.array([], pa.string())})
    before = [batch.id for batch in client.batches()]
    assert client.map(empty).column_names == ["prompt", "answer", "finish_reason", "error"]
    assert [batch.id for batch in client.batches()] == before


def test_what_cannot_be_asked_is_told_before_anything_is_sent(client: Client) -> None:
    rows = [{"body": "x"}]
    before = [batch.id for batch in client.batches()]
    with pytest.raises(UsageError, match="bodi"):
        client.map(rows, "{{ bodi }}")
    with pytest.raises(InputError, match="column prompt"):
        client.map(rows)
    with pytest.raises(InputError, match="answer"):
        client.map([{"answer": "x", "prompt": "y"}])
    with pytest.raises(UsageError, match="one of"):
        client.map(rows, "{{ body }}", column="body")
    assert [batch.id for batch in client.batches()] == before


def test_a_job_that_was_stopped_is_an_error_and_begun_anew_under_its_name(client: Client) -> None:
    rows = [{"word": word} for word in tiny.WORDS[:200]]

    def ask() -> object:
        return client.map(
            rows,
            "{{ word }}",
            endpoint=COMPLETIONS,
            model="tiny",
            temperature=0,
            max_tokens=300,
            name="stopped",
            progress=False,
        )

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        while not (found := _named(client, "stopped")):
            time.sleep(0.01)
        client.cancel(found[0].id)
        with pytest.raises(BatchFailed, match="cancelled"):
            asked.result()
    answered = ask()
    assert isinstance(answered, list)
    assert [row["answer"] for row in answered] == _answers([row["word"] for row in rows], 300)
    assert len(_named(client, "stopped")) == 2


def _named(client: Client, name: str) -> list[Batch]:
    return [batch for batch in client.batches() if (batch.metadata or {}).get("map") == name]
