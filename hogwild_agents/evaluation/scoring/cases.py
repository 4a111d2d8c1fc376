"""Reads the test cases of LiveCodeBench problems, without running what a pickle may hold.

Private tests come as base64 of zlib of a pickle of JSON, or as JSON (in the benchmark's repository:
`lcb_runner/benchmarks/code_generation.py`). A pickle can call any function; the reader here looks
up no names, so it can only build plain values.
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

MAX_BYTES = 512 * 2**20
"""Largest unpacked size of private tests."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test.

    Attributes:
        input: The standard input; for functions, the arguments as JSON, one per line.
        expected: The expected output; for functions, the returned value as JSON.
        calls_function: Whether a function is called, or a program is run.
    """

    input: str
    expected: str
    calls_function: bool


class _PlainUnpickler(pickle.Unpickler):
    """Reads pickles of plain values; refuses pickles that need a class or a function."""

    def find_class(self, module: str, name: str) -> Any:
        raise BadTestsError(
            f"The pickle asks for {module}.{name}, but only plain values are allowed."
        )


def unpickle(data: bytes) -> Any:
    """The plain value in a pickle.

    Raises:
        BadTestsError: The pickle is broken, or holds more than plain values.
    """
    try:
        return _PlainUnpickler(io.BytesIO(data)).load()
    except BadTestsError:
        raise
    except Exception as error:  # a broken pickle may raise anything
        raise BadTestsError(f"The pickle is broken: {error}") from error


def read_cases(text: str) -> list[Case]:
    """The tests in a field of LiveCodeBench, public or private; "" holds none.

    Raises:
        BadTestsError: They cannot be read.
    """
    if not text.strip():
        return []
    tests = _json(text) if text.lstrip().startswith(("[", "{")) else _unpacked(text)
    if not isinstance(tests, list):
        raise BadTestsError("The tests are not a list.")
    return [_case(test) for test in tests]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadTestsError(f"The tests are not JSON: {error}") from error


def _unpacked(text: str) -> Any:
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), MAX_BYTES)
        whole = unpacker.eof
    except (ValueError, zlib.error) as error:
        raise BadTestsError(f"The tests are neither JSON nor base64 of zlib: {error}") from error
    if not whole:
        raise BadTestsError(f"The tests are cut off, or unpack to more than {MAX_BYTES:,} bytes.")
    value = unpickle(data)
    return _json(value) if isinstance(value, str) else value


def _case(test: Any) -> Case:
    try:
        kind = test["testtype"]
        text, expected = test["input"], test["output"]
    except (TypeError, KeyError) as error:
        raise BadTestsError("A test needs `input`, `output` and `testtype`.") from error
    if not (isinstance(text, str) and isinstance(expected, str)):
        raise BadTestsError("The input and output of a test must be text.")
    if kind not in ("stdin", "functional"):
        raise BadTestsError(f"The test type {kind!r} is neither 'stdin' nor 'functional'.")
    return Case(text, expected, calls_function=kind == "functional")
