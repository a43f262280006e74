"""
The page that shows the API to people: Swagger UI over ``/openapi.json``, on the admin port.

The page itself is a published program and tells nothing; what it shows it fetches with a key that
the reader types in and that is kept nowhere. Its program comes from the ``swagger-ui-py`` package,
of which only the files are used.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from gateway.web.admin_pages import Answer, Page

__all__ = ["api_pages"]

POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; frame-ancestors 'none'"
)

_PAGE: Final = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gateway: the API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<form id="ask" style="font-family: sans-serif; margin: 2rem">
  <label>Admin key with the scope <code>read</code>:
    <input id="key" type="password" autocomplete="off" autofocus></label>
  <button>Show</button> <output id="said"></output>
</form>
<div id="api"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
"""

_START: Final = b"""const form = document.getElementById("ask");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = document.getElementById("key").value;
  const answer = await fetch("/openapi.json", {headers: {Authorization: `Bearer ${key}`}});
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    document.getElementById("said").value = problem.detail || problem.title || answer.statusText;
    return;
  }
  form.remove();
  SwaggerUIBundle({spec: await answer.json(), dom_id: "#api", supportedSubmitMethods: []});
});
"""

_FILES: Final = {
    b"/docs/swagger-ui-bundle.js": ("swagger-ui-bundle.js", b"text/javascript; charset=utf-8"),
    b"/docs/swagger-ui.css": ("swagger-ui.css", b"text/css; charset=utf-8"),
}


def api_pages() -> dict[bytes, Page]:
    """
    List the page and its files, read now; none where the package is not installed.
    """
    spec = find_spec("swagger_ui")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(spec.submodule_search_locations[0]) / "static"
    try:
        found = {path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}
    except OSError:
        return {}
    found[b"/docs"] = (_PAGE, b"text/html; charset=utf-8")
    found[b"/docs/start.js"] = (_START, b"text/javascript; charset=utf-8")
    return {path: _page(body, kind) for path, (body, kind) in found.items()}


def _page(body: bytes, kind: bytes) -> Page:
    answer = Answer(body, 200, kind, POLICY)
    return Page(b"GET", None, lambda _key, _body: answer)
