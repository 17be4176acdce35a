"""The OpenAPI description and its page: they say what is accepted and what comes back."""

import re

import httpx

from storage.endpoints import SERVED

KEYS = ("message", "type", "param", "code")


def test_the_page_of_the_description_needs_no_network(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.findall(r"<script|<link|<img|https?://", page.text)
    described = http.get("/openapi.json").json()
    for path, item in described["paths"].items():
        assert path in page.text
        for operation in item.values():
            for named in operation.get("parameters", []):
                assert f"<code>{named['name']}</code>" in page.text
    for name in described["components"]["schemas"]:
        assert f'id="{name}"' in page.text


def test_the_description(http: httpx.Client) -> None:
    described = http.get("/openapi.json").json()
    assert {"/v1/files", "/v1/batches", "/v1/batches/{batch_id}/cancel", "/v1/models"} <= set(
        described["paths"]
    )
    form = described["paths"]["/v1/files"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert set(form["schema"]["properties"]) == {"file", "purpose", "expires_after"}
    assert set(form["schema"]["required"]) == {"file", "purpose"}
    schemas = described["components"]["schemas"]
    assert "ExpiresAfter" in schemas
    assert tuple(schemas["ErrorBody"]["required"]) == KEYS
    for path, item in described["paths"].items():
        for operation in item.values():
            responses = operation["responses"]
            assert "422" not in responses, "a refused request is 400"
            refusal = {"$ref": "#/components/schemas/ErrorEnvelope"}
            for status in ("4XX", "5XX"):
                content = responses[status]["content"]["application/json"]
                assert content["schema"] == refusal
            assert all("x-request-id" in each["headers"] for each in responses.values())
            assert ("security" in operation) == path.startswith("/v1/")
    content = described["paths"]["/v1/files/{file_id}/content"]["get"]["responses"]
    for status in ("200", "206"):
        assert set(content[status]["content"]) == {"application/octet-stream"}
    assert set(described["paths"]["/readyz"]["get"]["responses"]) >= {"200", "503"}
    priority = schemas["BatchOptions"]["properties"]["priority"]
    assert (priority["type"], priority["minimum"], priority["maximum"]) == ("integer", -100, 100)
    assert schemas["ExpiresAfter"]["properties"]["seconds"]["minimum"] == 3600
    assert schemas["BatchCreate"]["properties"]["endpoint"]["enum"] == list(SERVED)


def test_what_is_done_to_a_batch_is_described(http: httpx.Client) -> None:
    described = http.get("/openapi.json").json()
    for what in ("cancel", "pause", "resume", "retry"):
        route = described["paths"][f"/v1/batches/{{batch_id}}/{what}"]["post"]
        answer = route["responses"]["200"]["content"]["application/json"]["schema"]
        assert answer == {"$ref": "#/components/schemas/Batch"}
        assert route["description"]
        assert ("requestBody" in route) == (what == "retry")
        if what == "retry":
            assert not route["requestBody"].get("required", False)
            assert "idempotency-key" in {each["name"] for each in route["parameters"]}
    schemas = described["components"]["schemas"]
    assert set(schemas["BatchRetry"]["properties"]) == {"completion_window", "metadata", "tidemill"}
    assert {"paused", "retry_of"} <= set(schemas["BatchExtension"]["properties"])
