"""The writer of a reply: where its text ends, and which parts are streamed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hogwild_agents.engine import SamplerState, SamplingParams
from hogwild_agents.errors import InvalidTeamError
from hogwild_agents.team import ReplyToken
from hogwild_agents.team.reply_writer import ReplyWriter
from hogwild_agents.team.tokenizer import Detokenizer
from tests.unit.team.scripted import play, team_of

END = -1


class Letters(Detokenizer):
    """Tokens are the letters of a word, by index."""

    def __init__(self, parts: list[str]) -> None:
        self._parts = parts

    def push(self, token: int) -> str:
        return self._parts[token]

    def flush(self) -> str:
        return ""


def write(parts: list[str], stop: list[str], limit: int) -> tuple[ReplyWriter, list[str]]:
    """A writer that draws `parts` and then an end token, and the text it returned for each."""
    writer = ReplyWriter(
        view=[],
        pending_ids=[],
        sampler=SamplerState(SamplingParams()),
        detokenizer=Letters(parts),
        ends=frozenset([END]),
        limit=limit,
        is_complete=lambda _: False,
        answer_prefix="",
        budgets=[],
        first_writes=[],
        forks=[],
        stop=stop,
    )
    texts = []
    for token in [*range(len(parts)), END]:
        texts.append(writer.accept(token))
        assert writer.text == "".join(texts)
        if writer.reason is not None:
            break
    return writer, texts


texts = st.text("ab\n", max_size=4)


@given(
    parts=st.lists(texts, max_size=12),
    stop=st.lists(texts.filter(bool), max_size=3),
    limit=st.integers(1, 14),
)
def test_a_text_ends_before_the_first_stop_string(
    parts: list[str], stop: list[str], limit: int
) -> None:
    """However the text is split into tokens, it ends right before the stop string."""
    writer, _ = write(parts, stop, limit)
    read, expected, reason = "", "", ""
    for count, part in enumerate([*parts, None], 1):
        read += part or ""
        cuts = [read.find(text) for text in stop if text in read]
        if cuts or part is None or count == limit:
            expected = read[: min(cuts)] if cuts else read
            reason = "stop" if cuts or part is None else "length"
            break
    assert (writer.text, writer.reason) == (expected, reason)
    assert not any(text in writer.text for text in stop)


@given(parts=st.lists(texts, max_size=12), stop=st.lists(texts.filter(bool), min_size=1))
def test_little_is_held_back(parts: list[str], stop: list[str]) -> None:
    """Only the possible beginning of a stop string is held back."""
    writer, _ = write(parts, stop, limit=10**6)
    again, _ = write(parts[:-1], stop, limit=10**6)
    assert len(writer.held) < max(map(len, stop))
    assert (
        not again.held
        or again.reason is not None
        or any(text.startswith(again.held) for text in stop)
    )


def test_a_session_ends_its_reply_there() -> None:
    """Even across tokens; the rest is not streamed, and the thinking ignores stop strings."""
    team = team_of(stop=["END", "###"], budget=3, reply_tokens=40)
    played = play(team, {"### Reply\n\n": "Yes ENtirely.END more"})
    replied = "".join(event.text for event in played.events if isinstance(event, ReplyToken))
    assert played.result.reply == replied == "Yes ENtirely."
    assert played.result.reply_reason == "stop"


@pytest.mark.parametrize("stop", ["END", [""], [1], 5])
def test_stop_must_be_texts(stop: Any) -> None:
    with pytest.raises(InvalidTeamError, match="list of texts"):
        team_of(stop=stop)
