"""Which methods a path has, over all of its routes."""

from collections.abc import Iterable

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def allowed_methods(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """The methods that some route serves on the path of ``scope``; HEAD wherever GET is."""
    known = list(routes)

    def serves(method: str) -> bool:
        asked = {**scope, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in known)

    found = [method for method in METHODS if serves(method)]
    return sorted([*found, "HEAD"] if "GET" in found else found)
