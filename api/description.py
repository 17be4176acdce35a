"""The OpenAPI description: FastAPI's, made true of every response, and a page to read it."""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from jinja2 import Environment, PackageLoader

from api.middleware import REQUEST_ID_HEADER
from api.schemas.common import ErrorEnvelope

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorEnvelope, "description": "The request cannot be served as it is."},
    "5XX": {"model": ErrorEnvelope, "description": "The server failed, or is overloaded."},
}
ABOUT = """\
Every response has an `x-request-id`. HEAD works wherever GET does. Numbers are JSON numbers: a \
string or a boolean is none. Errors have one form: 400 for a request that is wrong, 401 without a \
valid key, 403 for a page of another site where no key is asked for, 404, 405 with `Allow`, 408 \
for a request that comes too slowly, 409, 413, 414 and 431 for one that is too large, 416 for a \
range outside of a file, 503 and 507 where the server lacks something.
"""
_METHODS = ("get", "post", "put", "patch", "delete")

_templates = Environment(
    loader=PackageLoader("api", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


class DescribedApp(FastAPI):
    """FastAPI, whose description is completed, and without pages that need a network."""

    def __init__(self) -> None:
        super().__init__(
            title="Tidemill",
            summary="Batch inference for language models: the OpenAI Files and Batches API.",
            description=ABOUT,
            responses=ERROR_RESPONSES,
            docs_url=None,
            redoc_url=None,
        )

    def openapi(self) -> dict[str, Any]:
        """The description; it is made once."""
        described = super().openapi()
        for _, _, operation in operations_of(described):
            for response in operation["responses"].values():
                headers = response.setdefault("headers", {})
                headers.setdefault(REQUEST_ID_HEADER, {"schema": {"type": "string"}})
        return described


def operations_of(described: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each path, method and operation of a description."""
    for path, item in described["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method]


def page_of(described: Mapping[str, Any]) -> str:
    """The description as one page of HTML that loads nothing else."""
    template = _templates.get_template("description.html")
    return template.render(
        described=described,
        operations=list(operations_of(described)),
        schemas=described["components"]["schemas"],
        kind=kind_of,
    )


def kind_of(schema: Mapping[str, Any]) -> str:
    """A JSON schema in a few words: ``integer``, ``ExpiresAfter or null``, ``"asc" or "desc"``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(kind_of(each) for each in schema[several])
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f'"{value}"' for value in values)
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"array of {kind_of(schema.get('items', {}))}"
    bounds = [
        f"{word} {schema[name]}"
        for name, word in (("minimum", "at least"), ("maximum", "at most"))
        if name in schema
    ]
    return ", ".join([kind, *bounds])
