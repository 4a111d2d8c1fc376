"""Rows of data files: JSON lines, JSON, CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from hogwild_agents.errors import EvaluationError


class MalformedRow(NamedTuple):
    """A row that cannot become a problem."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        file: Path of the file, or `hf:` and a path on the hub.
        line: Line number, from 1; in a table without lines, the row number.
        fields: Values by field name.
    """

    file: str
    line: int
    fields: Mapping[str, Any]

    def malformed(self, reason: object) -> MalformedRow:
        """This row as a malformed one."""
        return MalformedRow(self.file, self.line, str(reason))


Rows: TypeAlias = Iterator[Row | MalformedRow]


def read(path: str | Path) -> Rows:
    """The rows of a file: JSON lines, JSON (a list), CSV, TSV or Parquet, by its suffix.

    Raises:
        EvaluationError: There is no such file, or it cannot be read.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise EvaluationError(
            f"The format of {path} is unknown: its name must end in {', '.join(READERS)}."
        )
    if not path.is_file():
        raise EvaluationError(f"There is no file {path}. Check the path.")
    return reader(path)


def _json_lines(path: Path) -> Rows:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _row(path, number, line)


def _row(path: Path, number: int, line: bytes) -> Row | MalformedRow:
    try:
        fields = json.loads(line)
    except RecursionError:
        return MalformedRow(str(path), number, "its JSON is nested too deeply.")
    except ValueError as error:
        return MalformedRow(str(path), number, f"it is not JSON: {error}.")
    if not isinstance(fields, dict):
        return MalformedRow(str(path), number, "it is not a JSON object, `{...}`.")
    return Row(str(path), number, fields)


def _json_list(path: Path) -> Rows:
    try:
        items = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path} is not JSON: {error}. Is it JSON lines (.jsonl)?") from error
    if not isinstance(items, list):
        raise EvaluationError(
            f"{path} is not a list of objects. Write one object per line, as .jsonl."
        )
    for number, fields in enumerate(items, 1):
        row = Row(str(path), number, fields if isinstance(fields, dict) else {})
        yield (
            row if isinstance(fields, dict) else row.malformed("it is not a JSON object, `{...}`.")
        )


def _table(separator: str) -> Callable[[Path], Rows]:
    def rows(path: Path) -> Rows:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.reader(file, delimiter=separator, strict=True)
            names: list[str] = []
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    yield MalformedRow(str(path), line, f"it is not {path.suffix[1:]}: {error}.")
                    continue
                if cells is None:
                    return
                if not names:
                    names = cells
                elif len(cells) == len(names):
                    yield Row(str(path), line, dict(zip(names, cells, strict=True)))
                elif cells:
                    reason = f"it has {len(cells)} cells, but the first line has {len(names)}."
                    yield MalformedRow(str(path), line, reason)

    return rows


def _parquet(path: Path) -> Rows:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise EvaluationError(f"To read {path}, install pyarrow: pip install pyarrow.") from error
    number = 0
    for batch in ParquetFile(path).iter_batches(batch_size=64):
        for fields in batch.to_pylist():
            number += 1
            yield Row(str(path), number, fields)


READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _json_lines,
    ".json": _json_list,
    ".csv": _table(","),
    ".tsv": _table("\t"),
    ".parquet": _parquet,
}
"""Readers by file suffix."""
