"""What can never run is refused at once, with the figures and before any work is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hogwild_agents.engine import Engine, SharedCacheModel
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.errors import (
    ContextLengthError,
    EngineClosedError,
    HogwildError,
    InvalidJobError,
    InvalidTokensError,
    OutOfCacheMemoryError,
    SessionFailedError,
)
from tests.unit.engine.families import build
from tests.unit.engine.jobs import (
    QWEN,
    SPEC,
    WAIT,
    Gate,
    Rows,
    Spy,
    Team,
    load,
    patched,
)
from tests.unit.engine.reference import some_tokens


def sized(max_cache_tokens: int, writers: int = 2) -> Team:
    """A job that claims so much memory."""
    job = SPEC.job()
    job.max_cache_tokens, job.max_writers = max_cache_tokens, writers
    return job


def choosy(error: BaseException) -> Team:
    """A job that refuses the model."""

    def check(_: SharedCacheModel) -> None:
        raise error

    return patched(SPEC.job(), check=check)


class TestRefusals:
    """Each with one typed error that has the figures, before any work is done."""

    @pytest.mark.parametrize(
        ("job", "kind", "figures"),
        [
            (Team([]), InvalidJobError, "no token"),
            (Team(()), InvalidJobError, "no token"),
            (Team([1, 2, 128]), InvalidTokensError, "128.* 0 to 127"),
            (Team([5, -1]), InvalidTokensError, "-1"),
            (Team([1.5, 2.0]), InvalidTokensError, "float"),  # type: ignore[list-item]
            (Team(["a", "b"]), InvalidTokensError, "whole numbers"),  # type: ignore[list-item]
            (Team([[1, 2], [3, 4]]), InvalidTokensError, r"\(2, 2\)"),  # type: ignore[list-item]
            (Team([2**70]), InvalidTokensError, "whole numbers"),
            (Team([1] * 4100), ContextLengthError, "4,100.* 4 more.* 4,096"),
            (sized(64 * PAGE), OutOfCacheMemoryError, "2,048 tokens.* 69 pages.* 64"),
            (sized(100, writers=40), OutOfCacheMemoryError, "100 tokens.* 85 pages.* 64"),
            (choosy(InvalidJobError("three is a crowd")), InvalidJobError, "crowd"),
            (choosy(OSError("disk")), OSError, "disk"),
        ],
    )
    def test_a_job_that_can_never_run(
        self, monkeypatch: pytest.MonkeyPatch, job: Team, kind: type[Exception], figures: str
    ) -> None:
        """No pass is run for it, and no thread is started."""
        model = load(64)
        spy = Spy(model, monkeypatch)
        with Engine(model) as engine:
            with pytest.raises(kind, match=figures):
                engine.submit(job)
            assert engine._loop._thread is None, "no thread was started"
            assert engine.submit(SPEC.job()).result(WAIT).drawn
        assert spy.passes[0] == [40]

    def test_the_largest_jobs_that_fit(self) -> None:
        """One token, or page, less than what is refused."""
        model = SharedCacheModel.from_pretrained(build(QWEN), max_length=64)
        with Engine(model) as engine:
            full = engine.submit(Team(some_tokens(64), workers=1, passes=0)).result(WAIT)
            assert full.usage.prompt_tokens == 64
            handle = engine.submit(Team(some_tokens(63), workers=1, passes=5))
            with pytest.raises(SessionFailedError) as caught:
                handle.result(WAIT)
            assert isinstance(caught.value.__cause__, ContextLengthError)
            assert len(caught.value.partial.drawn) == 1
        with Engine(load(64)) as engine:
            assert engine.submit(sized(59 * PAGE)).result(WAIT).error is None

    def test_a_closed_engine(self, model: SharedCacheModel) -> None:
        """It takes nothing more."""
        engine = Engine(model)
        engine.close()
        with pytest.raises(EngineClosedError, match="closed"):
            engine.submit(SPEC.job())

    def test_a_second_engine_on_one_model(self, model: SharedCacheModel, rows: Rows) -> None:
        """It would run passes at the same time, so it may come only when the first is idle."""
        first_one = Engine(model)
        assert first_one.submit(SPEC.job()).result(WAIT).drawn == rows
        with Engine(model) as second:
            assert second.submit(SPEC.job()).result(WAIT).drawn == rows
            with pytest.raises(EngineClosedError, match="closed"):
                first_one.submit(SPEC.job())
            first_one.close()
            gate = Gate()
            handle = second.submit(SPEC.job(lambda _, index: gate.wait() if index == 3 else None))
            with pytest.raises(InvalidJobError, match="at work"):
                Engine(model)
            gate.open()
            assert handle.result(WAIT).drawn == rows

    def test_a_job_that_was_submitted_before(self, engine: Engine, rows: Rows) -> None:
        """While it runs, and after its end; the first handle does not mind."""
        gate = Gate()
        job = SPEC.job(lambda _, index: gate.wait() if index == 3 else None)
        handle = engine.submit(job)
        with pytest.raises(InvalidJobError, match="once"):
            engine.submit(job)
        gate.open()
        assert handle.result(WAIT).drawn == rows
        with pytest.raises(InvalidJobError, match="once"):
            engine.submit(job)

    def test_what_is_no_job(self, engine: Engine) -> None:
        """Nor a model, where one is wanted."""
        for wrong in (None, "a problem", [1, 2, 3]):
            with pytest.raises(InvalidJobError, match="submit a session"):
                engine.submit(wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidJobError, match=type(wrong).__name__):
                Engine(wrong)  # type: ignore[arg-type]

    def test_waiting_on_the_engines_own_thread(self, engine: Engine, rows: Rows) -> None:
        """A job that waits for another of its engine would wait forever."""
        other = engine.submit(SPEC.job())
        handle = engine.submit(SPEC.job(lambda *_: other.result(WAIT)))
        with pytest.raises(SessionFailedError) as caught:
            handle.result(WAIT)
        assert isinstance(caught.value.__cause__, InvalidJobError)
        assert other.result(WAIT).drawn == rows

    @pytest.mark.parametrize(
        "options", [{"prefill_chunk": 0}, {"prefill_chunk": 2.5}, {"prefix_bytes": -1}]
    )
    def test_options_that_make_no_sense(
        self, model: SharedCacheModel, options: dict[str, Any]
    ) -> None:
        """The message names the value; the model is still free."""
        (value,) = options.values()
        with pytest.raises(InvalidJobError, match=f"={value} "):
            Engine(model, **options)
        Engine(model).close()

    def test_all_are_of_one_family(self) -> None:
        """A caller may catch any of them as HogwildError."""
        for kind in (InvalidJobError, InvalidTokensError, ContextLengthError, EngineClosedError):
            assert issubclass(kind, HogwildError)

    @pytest.mark.parametrize("pages", [1, 2, 7])
    def test_prefix_bytes_are_whole_pages(self, pages: int) -> None:
        """Whatever is left over of the cache's own bytes."""
        model = SharedCacheModel.from_pretrained(build(QWEN), cache_bytes=40 * PAGE * 512 + 10_000)
        with Engine(model, prefix_bytes=pages * PAGE * 512) as engine:
            assert engine._loop.scheduler.prefix_cache.limit_pages == pages
        with Engine(model) as engine:
            assert engine._loop.scheduler.prefix_cache.limit_pages == 10


@pytest.mark.parametrize("kind", [tuple, np.array, torch.tensor, lambda p: np.array(p, np.int32)])
def test_a_prompt_of_any_kind(engine: Engine, rows: Rows, kind: Callable[[Any], Any]) -> None:
    """Changing it after it was submitted has no effect, not even in the prefix cache."""
    prompt = kind(list(SPEC.prompt))
    job = Team(prompt, SPEC.workers, SPEC.passes)
    gate = Gate()
    job._before = lambda _, index: gate.wait() if index == 0 else None
    handle = engine.submit(job)
    gate.reached()
    if not isinstance(prompt, tuple):
        prompt[:] = 1
    gate.open()
    assert handle.result(WAIT).drawn == rows
    again = engine.submit(SPEC.job()).result(WAIT)
    assert again.usage.reused_tokens == 39
    assert again.drawn == rows
    other = engine.submit(Team([1] * 40)).result(WAIT)
    assert other.usage.reused_tokens == 0
