"""Guides: they keep a reply to a form, while the thinking before it stays free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hogwild_agents.engine import Engine, SamplerState, SamplingParams
from hogwild_agents.errors import ContextLengthError, InvalidTeamError, SessionFailedError
from hogwild_agents.team import ReplyToken, Result, Team, Token
from hogwild_agents.team.reply_writer import GUIDE_OVERRUN, Guide, ReplyWriter
from hogwild_agents.team.tokenizer import Detokenizer
from tests.unit.team.scripted import TINY, WAIT, Lines, scripted, team_of

END = -1
COLUMNS = TINY.config["vocab_size"]


@dataclass
class Dictated:
    """A guide that dictates the reply: some ids are drawn, the others are forced.

    Attributes:
        groups: Ids that come together; the first of each group is drawn, except in the first group.
        more: Whether anything may follow.
        hurried: How often it was called to hurry.
        taken: The drawn ids.
    """

    groups: Sequence[Sequence[int]]
    more: bool = False
    hurried: int = 0
    taken: list[int] = field(default_factory=list)
    at: int = 1
    opening: str | None = None

    @property
    def done(self) -> bool:
        return self.at >= len(self.groups) and not self.more

    def begin(self) -> Sequence[int]:
        return self.groups[0]

    def allowed(self) -> Tensor | None:
        if self.at >= len(self.groups):
            return None
        mask = torch.zeros(COLUMNS, dtype=torch.bool)
        mask[self.groups[self.at][0]] = True
        return mask

    def take(self, token: int) -> Sequence[int]:
        self.taken.append(token)
        self.at += 1
        return self.groups[self.at - 1][1:] if self.at <= len(self.groups) else ()

    def hurry(self, room: int) -> bool:
        assert 0 < room <= GUIDE_OVERRUN
        self.hurried += 1
        return True


class Letters(Detokenizer):
    """Tokens are letters."""

    def __init__(self) -> None:
        pass

    def push(self, token: int) -> str:
        return chr(token)

    def flush(self) -> str:
        return ""


def new_writer(guide: Guide, limit: int = 10**6, stop: Sequence[str] = ()) -> ReplyWriter:
    """A writer that follows a guide."""
    return ReplyWriter(
        view=[],
        pending_ids=[1, 2],
        sampler=SamplerState(SamplingParams()),
        detokenizer=Letters(),
        ends=frozenset([END]),
        limit=limit,
        is_complete=lambda _: False,
        answer_prefix="",
        budgets=[],
        first_writes=[],
        forks=[],
        stop=stop,
        guide=guide,
    )


groups = st.lists(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=6)


@given(first=st.text("abc", max_size=4), rest=groups, limit=st.integers(1, 30))
def test_what_must_follow_is_written_at_once(first: str, rest: list[str], limit: int) -> None:
    """In one pass with the drawn token; all of it is returned, in order, and counted."""
    guide = Dictated([[ord(letter) for letter in group] for group in (first, *rest)])
    writer = new_writer(guide, limit)
    (write,) = writer.writes()
    assert write.tokens == [1, 2, *map(ord, first)]
    texts = []
    for group in rest:
        assert writer.reason is None
        assert writer.writes()[-1].allowed is not None
        texts.append(writer.accept(ord(group[0])))
        assert [*writer.pending_ids] == [*map(ord, group)]
    assert "".join(texts) == writer.text == first + "".join(rest)
    assert texts[0] == first + rest[0]
    assert writer.tokens == len(writer.text)
    assert writer.reason == ("stop" if writer.tokens <= limit else "length")
    assert guide.taken == [ord(group[0]) for group in rest]


@given(limit=st.integers(1, 9))
def test_at_its_limit_it_hurries(limit: int) -> None:
    """The guide may still come to an end; if it does not, the reply is cut off."""
    guide = Dictated([[]], more=True)
    writer = new_writer(guide, limit)
    while writer.reason is None:
        writer.accept(ord("a"))
        assert bool(guide.hurried) == (writer.tokens >= limit)
    assert writer.reason == "length"
    assert len(writer.text) == writer.tokens == limit + GUIDE_OVERRUN


def test_without_an_end_in_reach_it_is_cut() -> None:
    """It is cut at once, as more tokens would not help."""

    class Far(Dictated):
        def hurry(self, room: int) -> bool:
            assert room == GUIDE_OVERRUN
            return False

    writer = new_writer(Far([[]], more=True), 5)
    while writer.reason is None:
        writer.accept(ord("a"))
    assert (writer.reason, writer.text) == ("length", "aaaaa")


def test_it_ends_by_itself() -> None:
    """An end token ends it, even if the guide does not know that token."""
    guide = Dictated([[ord("a")]], more=True)
    writer = new_writer(guide)
    assert writer.accept(END) == "a"
    assert (writer.reason, writer.text, guide.taken) == ("stop", "a", [])


@pytest.mark.parametrize(
    ("opening", "written", "expected"),
    [
        (None, "abENDcd", "abENDcd"),
        ("<", "abENDcd<xENDy>", "ab"),
        ("<", "abc<xENDy>", "abc<xENDy>"),
        ("<", "abcEN<xENDy>", "abcEN<xENDy>"),
        ("<call>", "E<call>END</call>", "E<call>END</call>"),
        ("ENDING", "ab", "ab"),
    ],
)
def test_stop_strings_end_free_text_only(opening: str | None, written: str, expected: str) -> None:
    """Guided text stays complete, whatever it contains."""
    guide = Dictated([[], *([ord(letter)] for letter in written)], opening=opening)
    writer, text = new_writer(guide, stop=["END"]), ""
    for letter in written:
        text += writer.accept(ord(letter))
        if writer.reason is not None:
            break
    assert text == writer.text == expected
    assert writer.reason == "stop"


# In a session.


def run(team: Team, guide: Any, lines: Any = None, model: Any = None) -> tuple[Result, list[Any]]:
    """One session with a guide, whose model prefers another text."""
    model = model or scripted(Lines(team, lines or {"### Reply\n\n": "No!", "": "x"}))
    with Engine(model) as engine:
        handle = engine.submit(team.session("Q?", guide=guide))
        result = handle.result(WAIT)
        events = [*handle]
    assert model.pool.used_pages == 0
    return result, events


def dictated(*texts: str) -> Dictated:
    """A guide made of texts; tokens are bytes."""
    return Dictated([list(text.encode()) for text in texts])


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_reply_follows_and_the_thinking_is_free(workers: int) -> None:
    """Whatever the model prefers; forced tokens cost no passes."""
    team = team_of(workers, reply_tokens=100, budget=9)
    plain, _ = run(team, None)
    result, events = run(team, dictated("Yes, ", "I do", ", dear", "."))
    assert result.reply == "Yes, I do, dear."
    assert result.reply_reason == "stop"
    assert result.reply_tokens == len(result.reply)
    assert result.reply_passes == 3
    assert "".join(e.text for e in events if isinstance(e, ReplyToken)) == result.reply
    assert (result.history, result.unfinished) == (plain.history, plain.unfinished)
    thought = [event.token for event in events if isinstance(event, Token)]
    assert thought == ([] if workers == 1 else [ord("x")] * 9 * workers)


def test_a_limit_is_no_knife() -> None:
    """A guided reply is told to hurry and comes to its end."""
    team = team_of(reply_tokens=2, budget=3)
    guide = dictated("", "a", "b", "c", "d", "e")
    result, _ = run(team, guide)
    assert (result.reply, result.reply_reason, result.reply_tokens) == ("abcde", "length", 5)
    assert guide.hurried == 3


def test_each_session_has_its_own() -> None:
    """In the same passes as sessions without a guide."""
    team = team_of(reply_tokens=20, budget=4)
    model = scripted(Lines(team, {"### Reply\n\n": "No.", "": "x"}))
    with Engine(model) as engine:
        handles = [
            engine.submit(team.session("Q?", guide=guide))
            for guide in (dictated("", "a", "bc"), None, dictated("d", "e"))
        ]
        replies = [handle.result(WAIT).reply for handle in handles]
    assert replies[0] == "abc"
    assert replies[1].startswith("No.")
    assert replies[2] == "de"


def test_a_guide_that_breaks_down() -> None:
    """It fails its session, which keeps its partial result; others go on."""

    class Broken(Dictated):
        def take(self, token: int) -> Sequence[int]:
            if len(self.taken) == 1:
                raise ArithmeticError("lost the thread")
            return super().take(token)

    team = team_of(reply_tokens=20, budget=4)
    model = scripted(Lines(team, {"": "x"}))
    with Engine(model) as engine:
        bad = engine.submit(team.session("Q?", guide=Broken([[], [97], [98], [99]])))
        good = engine.submit(team.session("Q?", guide=dictated("", "o", "k")))
        with pytest.raises(SessionFailedError, match="lost the thread") as caught:
            bad.result(WAIT)
        assert good.result(WAIT).reply == "ok"
    assert caught.value.partial.reply == "a"
    assert model.pool.used_pages == 0


def test_no_token_is_left() -> None:
    """If no token is allowed, the session fails with an error that says so."""

    class Stuck(Dictated):
        def allowed(self) -> Tensor:
            return torch.zeros(COLUMNS, dtype=torch.bool)

    with pytest.raises(SessionFailedError, match="no token left to choose"):
        run(team_of(budget=3), Stuck([[], [97]]))


def test_the_bare_answer_has_no_form() -> None:
    """A guide requires a reply."""
    with pytest.raises(InvalidTeamError, match="finisher='reply'"):
        team_of(finisher="answer").session("Q?", guide=dictated("", "a"))


def test_room_for_a_proper_end() -> None:
    """It is kept free, or the session is refused before any work."""
    team = team_of(reply_tokens=64, budget=4)
    least = next(
        length
        for length in range(64, 2048, 16)
        if _fits(team.session("Q?"), scripted(max_length=length))
    )
    assert not _fits(team.session("Q?", guide=dictated("", "a")), scripted(max_length=least))
    enough = scripted(Lines(team, {"": "x"}), max_length=least + GUIDE_OVERRUN)
    result, _ = run(team, Dictated([[]], more=True), model=enough)
    assert result.reply_reason == "length"
    assert result.reply_tokens >= 64


def _fits(session: Any, model: Any) -> bool:
    try:
        session.check(model)
    except ContextLengthError:
        return False
    return True
