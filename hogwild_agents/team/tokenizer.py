"""Text to tokens and back, for a team that shares one model.

Text from outside is only text: whatever it holds and wherever it enters, it gives no control token.
Only the chat template's own words may, and the two never meet before both are tokens.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice, pairwise
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hogwild_agents.errors import ChatTemplateError
from hogwild_agents.team.chat_template import Message, Placeholders, check_messages, variants_of
from hogwild_agents.team.steps import SEPARATOR
from hogwild_agents.team.tool_format import SPELLED_MARKS, ToolCallFormat, measure_form, spell_out


class ThinkingTags(NamedTuple):
    """The marks around what a model thinks before it replies."""

    open: str
    close: str


THINKING_MARKS = (
    ThinkingTags("<think>", "</think>"),
    ThinkingTags("<thinking>", "</thinking>"),
    ThinkingTags("<thought>", "</thought>"),
    ThinkingTags("<reasoning>", "</reasoning>"),
    ThinkingTags("<seed:think>", "</seed:think>"),
    ThinkingTags("<longcat_think>", "</longcat_think>"),
    ThinkingTags("[THINK]", "[/THINK]"),
    ThinkingTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ThinkingTags("<|THINK_START|>", "<|THINK_END|>"),
    ThinkingTags("<|inner_prefix|>", "<|inner_suffix|>"),
    ThinkingTags("◁think▷", "◁/think▷"),
)

END_MARKS = (
    *("</s>", "<eos>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|end|>"),
    *("<|return|>", "<|endoftext|>", "<|end_of_text|>", "<|end_of_turn|>", "<|endofturn|>"),
    *("[|endofturn|]", "<end_of_turn>", "<turn|>", "<|END_OF_TURN_TOKEN|>"),
)
"""What ends a turn, in the vocabularies that have it as a token of its own."""

_SPOKEN = re.compile(r"<</?[A-Z]+>>|\[/?[A-Z_]+\]|</?\w+>|<\|\w+\|>")  # as templates write marks
_ANCHORS = ("\n", "x", ".", "0")  # whatever a text begins with, one of them does not merge with it
_UNFINISHED = "\ufffd"  # how decoders show a character whose last bytes are still to come
_PATIENCE = 32  # tokens that may wait for those bytes; far more than any text needs


class TeamTokenizer:
    """A model's tokenizer, made safe for text from outside.

    Args:
        tokenizer: The model's own.
        end_tokens: Further ids that end a turn, such as `generation_config.eos_token_id`.

    Attributes:
        control: Ids that plain text never gives: special tokens, ends, the marks of thinking.
        ends: Ids that end a turn.
        thinking: The marks around the model's thoughts, or None if it has none.
        thinking_ids: Their ids, the opening one first; empty if there are none.
        spoken_marks: Marks of the chat template that are plain text for want of a token, such as
            Llama 2's `[INST]`: outside text must not look like them.
    """

    control: frozenset[int]
    ends: frozenset[int]
    thinking: ThinkingTags | None
    thinking_ids: tuple[int, ...]
    spoken_marks: tuple[str, ...]

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, end_tokens: Iterable[int] = ()
    ) -> None:
        # A copy: whoever else uses the tokenizer may set it to cut texts or to pad them.
        tokenizer = copy.deepcopy(tokenizer)
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._template = tokenizer.get_chat_template() if tokenizer.chat_template else None
        self._lead, self._anchors = self._measure_prefix()
        self._lead_size = len(self._show(self._lead))
        added = tokenizer.added_tokens_decoder
        self._marks = _Marks({token.content: index for index, token in added.items()})
        self._greedy = {token.content for token in added.values() if token.rstrip}

        ids = self._marks.ids
        self.thinking = next(filter(self._has, THINKING_MARKS), None)
        self.thinking_ids = tuple(ids[mark] for mark in self.thinking or ())
        self.spoken_marks = tuple(sorted({*_SPOKEN.findall(self._template or "")} - ids.keys()))
        ends = {*end_tokens, tokenizer.eos_token_id, *map(ids.get, END_MARKS)}
        self.ends = frozenset(end for end in ends if end is not None)

        control = {*tokenizer.all_special_ids, *self.thinking_ids}
        control.update(index for index, token in added.items() if token.special)
        # A model may end at a newline or a brace: an end, but one that any text may hold.
        control.update(i for i in self.ends if i in added or len(self.decode([i]).strip()) > 1)
        # The unknown token stands for what cannot be written; alone it controls nothing.
        offices = list(tokenizer.special_tokens_map.values())
        harmless = {tokenizer.unk_token_id} if offices.count(tokenizer.unk_token) == 1 else set()
        self.control = frozenset(control - harmless)
        self._forbidden = frozenset({*control, *ids.values()} - harmless)
        self._first_tokens: dict[tuple[str, ...], frozenset[int]] = {}
        self._repaired = False
        if self.call_form is None:
            self.spoken_marks += SPELLED_MARKS

    def encode(self, text: str) -> list[int]:
        """The ids of plain text, with no control id among them.

        As far as the tokenizer can write a text at all, `decode` gives it back, alone or joined to
        others: nothing is added before, between or after.
        """
        return self._encode(text, self._anchors)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, with control tokens spelled out."""
        return self._show([*self._lead, *tokens])[self._lead_size :]

    def prompt(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool = True,
    ) -> list[int]:
        """The ids of a conversation, up to where the model's next turn begins.

        Where the template has no place for system text, that heads the next user message; where it
        wants roles to alternate, neighbours of one role become one message, and a user who says
        nothing speaks before an assistant who would be the first.

        Args:
            messages: The conversation. What they hold beside role and content is for the template.
            tools: What the model may call: `{"type": "function", "function": {"name": ...,
                "description": ..., "parameters": JSON schema}}`.
            think: Whether a model that thinks begins by thinking, or replies at once.

        Raises:
            InvalidMessageError: There is no message, or one is malformed.
            ChatTemplateError: The model's chat template cannot hold the conversation.
        """
        messages = check_messages(messages)
        if self.call_form is None:
            messages, tools = spell_out(messages, tools), ()
        if self._template is None:
            contents = [part for message in messages for part in (message["content"], SEPARATOR)]
            return self._assemble([self._opening(), *contents])
        refusal: ChatTemplateError | None = None
        for variant in variants_of(messages):
            try:
                pieces = self._render(variant, tools, think)
            except ChatTemplateError as error:
                refusal = error
                continue
            if refusal is not None and not self._repaired:
                self._repaired = True
                warnings.warn(f"{refusal} It was rearranged so that it can.", stacklevel=2)
            return self._assemble(pieces)
        assert refusal is not None
        raise refusal

    def close_thinking(self) -> list[int]:
        """The ids that end the model's thoughts and begin its reply; none if it does not think."""
        if self.thinking is None:
            return []
        return [self.thinking_ids[1], *self.encode(SEPARATOR)]

    @property
    def plain(self) -> PreTrainedTokenizerBase:
        """The model's own tokenizer; not to be changed."""
        return self._tokenizer

    @cached_property
    def call_form(self) -> ToolCallFormat | None:
        """How the chat template writes calls of tools; None if they must be spelled out."""
        if self._template is None or "tools" not in self._template:
            return None
        ends = [mark for mark, index in self._marks.ids.items() if index in self.ends]
        render: Any = partial(
            self._tokenizer.apply_chat_template, chat_template=self._template, tokenize=False
        )
        return measure_form(render, ends)

    def pieces(self, text: str) -> Iterator[str | int]:
        """A template's own words in plain text and the ids of the control tokens among them."""
        end = 0
        for at, mark in self._marks.find(text):
            if at >= end:
                if text[end:at]:
                    yield text[end:at]
                yield self._marks.ids[mark]
                end = at + len(mark)
        if text[end:]:
            yield text[end:]

    def first_tokens(self, texts: Iterable[str]) -> frozenset[int]:
        """The ids with which a model would begin one of `texts`, at the start of a line or not."""
        texts = tuple(text.strip() for text in texts if text.strip())
        if texts not in self._first_tokens:  # it takes a look at the whole vocabulary
            self._first_tokens[texts] = self._find_first_tokens(texts)
        return self._first_tokens[texts]

    def _find_first_tokens(self, texts: Sequence[str]) -> frozenset[int]:
        words = {text.split()[0] for text in texts}
        found = {
            index
            for token, index in self._tokenizer.get_vocab().items()
            if any(word in token for word in words) and self.decode([index]).strip() in words
        }
        starts = (
            before + text + after
            for before in ("", " ", "\n", SEPARATOR)
            for text in texts
            for after in ("", SEPARATOR)  # a token may hold a whole text and the blank line
        )
        for start in starts:
            visible = (token for token in self.encode(start) if self.decode([token]).strip())
            found.update(islice(visible, 1))
        return frozenset(found)

    # Plain text

    def _raw(self, text: str) -> list[int]:
        """What the model's tokenizer makes of `text`."""
        return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def _show(self, tokens: Sequence[int]) -> str:
        """What the model's tokenizer reads in `tokens`."""
        return str(
            self._tokenizer.decode(
                list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def _measure_prefix(self) -> tuple[list[int], list[_Anchor]]:
        """What must stand before a piece of text for it to be treated as the middle of one.

        Tokenizers in sentencepiece's manner put a space before every text, and take it away again
        where they decode. Others need nothing.
        """
        letter = self._raw("x")
        if self._show(letter * 2) == "xx" and self._show(self._raw(" x")) == " x":
            return [], []
        return letter, [_Anchor(text, self._raw(text)) for text in _ANCHORS]

    def _encode(self, text: str, anchors: Sequence[_Anchor]) -> list[int]:
        """As `encode`, for text that begins after one of `anchors`."""
        text = _without_surrogates(text)
        cuts = [at + 1 for at, _ in self._marks.find(text)]  # one inside every mark
        tokens: list[int] = []
        for start, end in pairwise([0, *cuts, len(text)]):
            tokens += self._clean(text[start:end], anchors)
            anchors = self._anchors
        return tokens

    def _clean(self, piece: str, anchors: Sequence[_Anchor]) -> list[int]:
        """The ids of text without marks, halved for as long as normalising it makes one."""
        tokens = self._after(piece, anchors)
        if self._forbidden.isdisjoint(tokens):
            return tokens
        if len(piece) <= 1:
            return [token for token in tokens if token not in self._forbidden]
        half = len(piece) // 2
        return self._clean(piece[:half], anchors) + self._clean(piece[half:], self._anchors)

    def _after(self, piece: str, anchors: Sequence[_Anchor]) -> list[int]:
        """The ids of `piece` behind the first anchor that it leaves as it is."""
        for anchor in anchors:
            tokens = self._raw(anchor.text + piece)
            size = len(anchor.tokens)
            if tokens[:size] == anchor.tokens:
                return tokens[size:]
        return self._raw(piece)

    # Conversations

    def _has(self, pair: ThinkingTags) -> bool:
        """Whether the vocabulary holds these marks, and the chat template knows them."""
        return all(mark in self._marks.ids for mark in pair) and pair.close in (
            self._template or ""
        )

    def _opening(self) -> str:
        """What the tokenizer puts before a text by default: its first token, or nothing."""
        first = self._tokenizer.encode("x")[:1]
        return str(self._tokenizer.bos_token) if first == [self._tokenizer.bos_token_id] else ""

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], think: bool
    ) -> list[str]:
        """A conversation in pieces: the template's words, outside text, the template's, ...

        Raises:
            ChatTemplateError: The template fails, or leaves out what somebody said.
        """
        outside = Placeholders(self._template or "")
        hidden = [{**outside.hide(message), "role": message["role"]} for message in messages]
        wish: dict[str, Any] = {}
        if self.thinking:  # templates have two names for it
            wish = {"enable_thinking": think, "thinking": think}
        try:
            rendered = str(
                self._tokenizer.apply_chat_template(
                    hidden,
                    chat_template=self._template,
                    tools=[outside.hide(tool) for tool in tools] or None,
                    tokenize=False,
                    add_generation_prompt=True,
                    **wish,
                )
            )
        except Exception as error:  # a template is code: it may raise anything
            roles = ", ".join(message["role"] for message in messages)
            raise ChatTemplateError(
                f"The model's chat template cannot hold a conversation of {roles}: {error}. "
                "Leave out what it refuses, or set another tokenizer.chat_template."
            ) from error
        for message, stand_in in zip(messages, hidden, strict=True):
            # Some templates leave out what is said beside a tool call.
            if not outside.survives([stand_in["content"], stand_in.get("tool_calls")], rendered):
                raise ChatTemplateError(
                    f"The model's chat template loses what the {message['role']} says, "
                    f"{message['content'][:40]!r}: give it another role, "
                    "or set another tokenizer.chat_template."
                )
        pieces = outside.reveal(rendered)
        return [*pieces[:-1], self._set_thinking(pieces[-1], think)]

    def _set_thinking(self, tail: str, think: bool) -> str:
        """The template's last words, made to leave thinking open or closed."""
        if self.thinking is None:
            return tail
        opening, closing = self.thinking
        is_open = tail.rfind(opening) > tail.rfind(closing)
        if think and not is_open:
            return f"{tail}{opening}\n"
        if is_open and not think:
            return tail.rstrip("\n") + SEPARATOR + closing + SEPARATOR
        return tail

    def _assemble(self, pieces: Sequence[str]) -> list[int]:
        """The ids of what `_render` gives.

        The marks among the template's words become control tokens. All between two of them is plain
        text, whoever wrote it, and is tokenised in one go, as the model saw it in training.
        """
        tokens: list[int] = []
        anchors: list[_Anchor] = []
        text = ""
        for index, piece in enumerate(pieces):
            end = 0
            for at, mark in () if index % 2 else self._marks.find(piece):
                if at < end:
                    continue  # inside the mark before it
                control = [self._marks.ids[mark]]
                tokens += self._encode(text + piece[end:at], anchors) + control
                anchors = [_Anchor(mark, control), *self._anchors] if self._anchors else []
                text, end = "", at + len(mark)
                if mark in self._greedy:
                    end += len(piece[end:]) - len(piece[end:].lstrip())
            text += piece[end:]
        return tokens + self._encode(text, anchors)


class Reader:
    """Reads one stream of tokens as it grows, and holds back a character until it is whole.

    Args:
        tokenizer: Of the model that writes the stream.
    """

    def __init__(self, tokenizer: TeamTokenizer) -> None:
        self._tokenizer = tokenizer
        self._replacement = tokenizer.encode(_UNFINISHED)  # whole where a text itself holds it
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that this token completes; none while a character is unfinished."""
        held = self._held
        held.append(token)
        text = self._tokenizer.decode(held)
        whole = held[-len(self._replacement) :] == self._replacement
        if text.endswith(_UNFINISHED) and not whole and len(held) < _PATIENCE:
            return ""
        self._held = []
        return text

    def flush(self) -> str:
        """What is held back, as it stands."""
        held, self._held = self._held, []
        return self._tokenizer.decode(held) if held else ""


class _Anchor(NamedTuple):
    """A text that stands before another while that is tokenised, and its own ids."""

    text: str
    tokens: list[int]


class _Marks:
    """The added tokens that are more than a character or white space, and where a text has them."""

    def __init__(self, added: Mapping[str, int]) -> None:
        # Sentencepiece writes a space as "▁", and Gemma has runs of them among the added tokens.
        long = {text: index for text, index in added.items() if len(text) > 1}
        self.ids = {text: index for text, index in long.items() if text.replace("▁", " ").strip()}
        self._sizes: dict[str, list[int]] = {}  # by first character, longest first
        for first, size in sorted({(text[0], len(text)) for text in self.ids}, reverse=True):
            self._sizes.setdefault(first, []).append(size)
        self._first = re.compile("|".join(map(re.escape, self._sizes)) or "(?!)")

    def find(self, text: str) -> Iterator[tuple[int, str]]:
        """Every place where a mark begins, with the longest that does; they may overlap."""
        for found in self._first.finditer(text):
            at = found.start()
            candidates = (text[at : at + size] for size in self._sizes[found[0]])
            mark = next((candidate for candidate in candidates if candidate in self.ids), None)
            if mark is not None:
                yield at, mark


def _without_surrogates(text: str) -> str:
    """`text` as Unicode has it: JSON may bring halves of characters, which no tokenizer takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
