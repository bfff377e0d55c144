"""Pages that runs leave: one HTML file each, with style and pictures in it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2


def render_page(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template; all values are escaped.

    Parameters
    ----------
    template
        Its path below the package ``jobs``. It may include ``page_style.css``.
    context
        Every name that it uses.
    """
    root = files("jobs")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: root.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(context)


def png_file_url(path: Path) -> str:
    """Return a PNG file as ``data:`` URL, to embed in a page."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
