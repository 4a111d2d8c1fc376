"""Rows from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.datasets.rows import Row, Rows, read


def hub_rows(
    path: str, config: str | None = None, split: str = "test", files: Sequence[str] = ()
) -> Rows:
    """The rows of a data set on the hub.

    Args:
        path: Such as `openai/gsm8k`.
        config: Configuration (subset); None for the default.
        split: Such as `test`.
        files: Names of its files, if the package `datasets` cannot find them.

    Raises:
        EvaluationError: It cannot be loaded, or `datasets` is not installed.
    """
    return _files(path, files) if files else _table(path, config, split)


def _table(path: str, config: str | None, split: str) -> Rows:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise EvaluationError(
            f"Loading {path} from the hub needs datasets: pip install datasets. Or download it and "
            "give the file."
        ) from error
    try:
        table = load_dataset(path, config, split=split)
    except Exception as error:
        raise _load_error(path, config, split, error) from error
    for number, fields in enumerate(table, 1):
        yield Row(f"hf:{path}", number, fields)


def _files(path: str, files: Sequence[str]) -> Rows:
    from huggingface_hub import hf_hub_download

    for file in files:
        try:
            local = hf_hub_download(path, file, repo_type="dataset")
        except Exception as error:
            raise _load_error(path, None, file, error) from error
        for row in read(local):
            if isinstance(row, Row):
                yield Row(f"hf:{path}/{file}", row.line, row.fields)
            else:
                yield row._replace(file=f"hf:{path}/{file}")


def _load_error(path: str, config: str | None, part: str, error: Exception) -> EvaluationError:
    name = ", ".join(filter(None, (path, config, part)))
    return EvaluationError(
        f"Could not load {name} from the Hugging Face hub ({type(error).__name__}: {error}). "
        "Check the name and the network, or give a local file."
    )
