"""Keeps text from models and users harmless in a page.

Three measures, each of which is enough by itself: Jinja escapes every value; transcripts are JSON
without characters that have a meaning in HTML, and the reader shows them as text nodes; and the
page's security policy allows only one script, named by its hash, and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from markupsafe import Markup

_ESCAPES = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&'\u2028\u2029"}

_INVALID = (*range(32), 127, *range(0xD800, 0xE000), 0xFFFE, 0xFFFF)
_REPLACEMENTS: dict[int, str] = dict.fromkeys(_INVALID, "\ufffd")
_REPLACEMENTS |= {ord(letter): letter for letter in "\t\n"} | {ord("\r"): ""}


def clean(text: str) -> str:
    """Text without control characters and other code points that HTML and XML forbid."""
    return text.translate(_REPLACEMENTS)


def json_for_script(value: Any) -> Markup:
    """JSON that is safe inside a script element: ASCII without `<`, `>`, `&` and `'`."""
    return Markup(json.dumps(value, ensure_ascii=True).translate(_ESCAPES))


def security_policy(script: str, style: str) -> str:
    """A Content-Security-Policy that allows this script and this style, and loads nothing."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
