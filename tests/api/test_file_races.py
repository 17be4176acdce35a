"""An input is deleted while a batch of it is created: one of the two is refused, and says why."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import openai
import pytest
from openai import OpenAI

from storage.jobs import jobs
from storage.jobs.jobs import Created, NewJob
from storage.registry import files

LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'


def _upload(client: OpenAI) -> str:
    return client.files.create(file=("in.jsonl", LINE), purpose="batch").id


def _create(client: OpenAI, file_id: str) -> Any:
    return client.batches.create(
        input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
    )


def test_an_input_that_goes_in_the_middle_of_the_creation(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_job = jobs.create_job

    def delete_first(database: Any, new: NewJob) -> Created:
        files.soft_delete(database, new.tenant_id, new.input_file.id)
        return create_job(database, new)

    monkeypatch.setattr(jobs, "create_job", delete_first)
    file_id = _upload(client)
    with pytest.raises(openai.BadRequestError) as refused:
        _create(client, file_id)
    assert (refused.value.code, refused.value.param) == ("file_not_found", "input_file_id")
    assert file_id not in {batch.input_file_id for batch in client.batches.list()}


def test_creation_and_deletion_at_once(client: OpenAI) -> None:
    with ThreadPoolExecutor(2) as threads:
        for _ in range(10):
            file_id = _upload(client)
            created = threads.submit(_refusal, partial(_create, client, file_id))
            deleted = threads.submit(_refusal, partial(client.files.delete, file_id))
            assert {created.result(30), deleted.result(30)} in (
                {None, "file_in_use"},
                {None, "file_not_found"},
            )


def _refusal(call: Any) -> str | None:
    try:
        call()
    except openai.APIStatusError as error:
        return error.code
    return None
