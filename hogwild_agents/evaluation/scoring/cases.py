"""The tests of a LiveCodeBench problem, and how to read the private ones without running them.

Private tests come as base64 of zlib of a pickle of JSON, or as JSON (in the benchmark's repository:
`lcb_runner/benchmarks/code_generation.py`). A pickle can call anything; the reader here knows no
name to call, so that it can only build plain values.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from dataclasses import dataclass
from typing import Any

from hogwild_agents.errors import BadTestsError

LARGEST = 512 * 2**20
"""Bytes that private tests may unpack to."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test: what goes in, and what must come out."""

    given: str
    expected: str
    function: bool
    """Whether a function is called, or else a program reads its input."""


class _Plain(pickle.Unpickler):
    """Reads pickles of plain values, and none that need a class or a function."""

    def find_class(self, module: str, name: str) -> Any:
        raise BadTestsError(
            f"The pickle asks for {module}.{name}: plain values need nothing of that."
        )


def unpickle(data: bytes) -> Any:
    """The plain value in a pickle.

    Raises:
        BadTestsError: If there is none, or more than plain values.
    """
    try:
        return _Plain(io.BytesIO(data)).load()
    except BadTestsError:
        raise
    except Exception as error:  # broken pickles raise nearly anything
        raise BadTestsError(f"The pickle is broken: {error}") from error


def read_cases(text: str) -> list[Case]:
    """The tests in a field of LiveCodeBench, public or private; "" has none.

    Raises:
        BadTestsError: If they cannot be read.
    """
    if not text.strip():
        return []
    found = _json(text) if text.lstrip().startswith(("[", "{")) else _unpacked(text)
    if not isinstance(found, list):
        raise BadTestsError("The tests are no list.")
    return [_case(each) for each in found]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadTestsError(f"The tests are no JSON: {error}") from error


def _unpacked(text: str) -> Any:
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), LARGEST)
        whole = unpacker.eof
    except (ValueError, zlib.error) as error:
        raise BadTestsError(f"The tests are neither JSON nor base64 of zlib: {error}") from error
    if not whole:
        raise BadTestsError(f"The tests are cut off, or unpack to more than {LARGEST:,} bytes.")
    value = unpickle(data)
    return _json(value) if isinstance(value, str) else value


def _case(found: Any) -> Case:
    try:
        kind = found["testtype"]
        given, expected = found["input"], found["output"]
    except (TypeError, KeyError) as error:
        raise BadTestsError("A test needs `input`, `output` and `testtype`.") from error
    if not (isinstance(given, str) and isinstance(expected, str)):
        raise BadTestsError("The input and output of a test must be text.")
    if kind not in ("stdin", "functional"):
        raise BadTestsError(f"The test type {kind!r} is neither 'stdin' nor 'functional'.")
    return Case(given, expected, function=kind == "functional")
