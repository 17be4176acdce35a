"""``/docs``: the description of the API as a page. As for everything else, a key is asked for."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.description import page_of

router = APIRouter(include_in_schema=False)

# The page is plain text and tables: nothing is loaded, run, sent or framed.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


@router.get("/docs")
def show_description(request: Request) -> HTMLResponse:
    """Every route and every object, to read."""
    page = page_of(request.app.openapi())
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})
