"""TeamTokenizer: text to tokens and back, safe for text from outside.

Text from outside is only text. Whatever it holds, and wherever it enters, it never becomes a
control token. Only the chat template's own words may, so both are kept apart until they are tokens.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from hogwild_agents.errors import ChatTemplateError
from hogwild_agents.team.chat_template import Message, Placeholders, check_messages, variants_of
from hogwild_agents.team.steps import SEPARATOR
from hogwild_agents.team.tool_format import TOOL_MARKS, ToolCallFormat, measure_format, spell_out

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ThinkingTags(NamedTuple):
    """The tags around what a model thinks before it replies."""

    open: str
    close: str


THINKING_TAGS = (
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
"""Tokens that end a turn, in various vocabularies."""

_MARK_IN_TEMPLATE = re.compile(r"<</?[A-Z]+>>|\[/?[A-Z_]+\]|</?\w+>|<\|\w+\|>")
_LEFT_CONTEXTS = ("\n", "x", ".", "0")  # whatever a text begins with, one does not merge with it
_INCOMPLETE = "\ufffd"  # how decoders show a character whose last bytes are still missing
_MAX_HELD = 32  # tokens that may wait for those bytes; far more than any text needs


class TeamTokenizer:
    """A model's tokenizer, made safe for text from outside.

    Args:
        tokenizer: The model's own tokenizer.
        end_tokens: Further ids that end a turn, such as `generation_config.eos_token_id`.

    Attributes:
        control: Ids that plain text never gives: special tokens, ends, thinking tags.
        ends: Ids that end a turn.
        thinking: The tags around the model's thoughts, or None if it has none.
        thinking_ids: Their ids, the opening one first; empty if there are none.
        plain_text_marks: Marks of the chat template that have no token and so are plain text, such
            as Llama 2's `[INST]`. Outside text must not look like them.
    """

    control: frozenset[int]
    ends: frozenset[int]
    thinking: ThinkingTags | None
    thinking_ids: tuple[int, ...]
    plain_text_marks: tuple[str, ...]

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, end_tokens: Iterable[int] = ()
    ) -> None:
        from transformers import PreTrainedTokenizerFast  # slow, and only needed here

        # A copy, because other users of the tokenizer may make it truncate or pad texts.
        tokenizer = copy.deepcopy(tokenizer)
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._template = tokenizer.get_chat_template() if tokenizer.chat_template else None
        self._prefix_ids, self._contexts = self._measure_left_context()
        self._prefix_length = len(self._raw_decode(self._prefix_ids))
        added = tokenizer.added_tokens_decoder
        self._added = _AddedTokens({token.content: index for index, token in added.items()})
        self._right_stripping = {token.content for token in added.values() if token.rstrip}

        ids = self._added.ids
        self.thinking = next(filter(self._knows, THINKING_TAGS), None)
        self.thinking_ids = tuple(ids[mark] for mark in self.thinking or ())
        self.plain_text_marks = tuple(
            sorted({*_MARK_IN_TEMPLATE.findall(self._template or "")} - ids.keys())
        )
        ends = {*end_tokens, tokenizer.eos_token_id, *map(ids.get, END_MARKS)}
        self.ends = frozenset(end for end in ends if end is not None)

        control = {*tokenizer.all_special_ids, *self.thinking_ids}
        control.update(index for index, token in added.items() if token.special)
        # A model may end at a newline or a brace. That is an end, but any text may hold it.
        control.update(i for i in self.ends if i in added or len(self.decode([i]).strip()) > 1)
        # The unknown token stands for what cannot be written. If it has no other role, it
        # controls nothing.
        roles = list(tokenizer.special_tokens_map.values())
        harmless = {tokenizer.unk_token_id} if roles.count(tokenizer.unk_token) == 1 else set()
        self.control = frozenset(control - harmless)
        self._forbidden = frozenset({*control, *ids.values()} - harmless)
        self._first_tokens: dict[tuple[str, ...], frozenset[int]] = {}
        self._has_warned = False
        if self.tool_call_format is None:
            self.plain_text_marks += TOOL_MARKS

    def encode(self, text: str) -> list[int]:
        """The ids of plain text, with no control id among them.

        `decode` gives the text back, alone or joined to others, as far as the tokenizer can write
        it at all: nothing is added before, between or after texts.
        """
        return self._encode(text, self._contexts)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, with control tokens spelled out."""
        return self._raw_decode([*self._prefix_ids, *tokens])[self._prefix_length :]

    def prompt(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool = True,
    ) -> list[int]:
        """The ids of a conversation, up to where the model's next turn begins.

        If the template takes no system text, that goes to the head of the next user message. If
        it wants roles to alternate, neighbours of one role become one message, and an empty user
        message goes before an assistant message that would be the first.

        Args:
            messages: The conversation. Keys other than role and content are for the template.
            tools: What the model may call: `{"type": "function", "function": {"name": ...,
                "description": ..., "parameters": JSON schema}}`.
            think: Whether a model with thinking tags begins by thinking, or replies at once.

        Raises:
            InvalidMessageError: There is no message, or one is malformed.
            ChatTemplateError: The model's chat template cannot hold the conversation.
        """
        messages = check_messages(messages)
        if self.tool_call_format is None:
            messages, tools = spell_out(messages, tools), ()
        if self._template is None:
            contents = [part for message in messages for part in (message["content"], SEPARATOR)]
            return self._assemble([self._default_opening(), *contents])
        refusal: ChatTemplateError | None = None
        for variant in variants_of(messages):
            try:
                pieces = self._render(variant, tools, think)
            except ChatTemplateError as error:
                refusal = error
                continue
            if refusal is not None and not self._has_warned:
                self._has_warned = True
                warnings.warn(f"{refusal} It was rearranged so that it can.", stacklevel=2)
            return self._assemble(pieces)
        assert refusal is not None
        raise refusal

    def close_thinking(self) -> list[int]:
        """The ids that end the model's thoughts and begin its reply; empty without tags."""
        if self.thinking is None:
            return []
        return [self.thinking_ids[1], *self.encode(SEPARATOR)]

    @property
    def plain(self) -> PreTrainedTokenizerBase:
        """The model's own tokenizer; do not change it."""
        return self._tokenizer

    @cached_property
    def tool_call_format(self) -> ToolCallFormat | None:
        """How the chat template writes tool calls; None if they must be spelled out."""
        if self._template is None or "tools" not in self._template:
            return None
        ends = [mark for mark, index in self._added.ids.items() if index in self.ends]
        render: Any = partial(
            self._tokenizer.apply_chat_template, chat_template=self._template, tokenize=False
        )
        return measure_format(render, ends)

    def pieces(self, text: str) -> Iterator[str | int]:
        """A template's own words: plain text and the ids of the added tokens in it, in order."""
        end = 0
        for start, token in self._added.find(text):
            if start >= end:
                if text[end:start]:
                    yield text[end:start]
                yield self._added.ids[token]
                end = start + len(token)
        if text[end:]:
            yield text[end:]

    def first_tokens(self, texts: Iterable[str]) -> frozenset[int]:
        """The ids with which a model would begin one of `texts`, at the start of a line or not."""
        texts = tuple(text.strip() for text in texts if text.strip())
        if texts not in self._first_tokens:  # it searches the whole vocabulary
            self._first_tokens[texts] = self._find_first_tokens(texts)
        return self._first_tokens[texts]

    def _find_first_tokens(self, texts: Sequence[str]) -> frozenset[int]:
        words = {text.split()[0] for text in texts}
        first_ids = {
            index
            for token, index in self._tokenizer.get_vocab().items()
            if any(word in token for word in words) and self.decode([index]).strip() in words
        }
        beginnings = (
            before + text + after
            for before in ("", " ", "\n", SEPARATOR)
            for text in texts
            for after in ("", SEPARATOR)  # a token may hold a whole text and the blank line
        )
        for beginning in beginnings:
            visible = (token for token in self.encode(beginning) if self.decode([token]).strip())
            first_ids.update(islice(visible, 1))
        return frozenset(first_ids)

    # Plain text

    def _raw_encode(self, text: str) -> list[int]:
        """The ids that the model's own tokenizer gives for `text`."""
        return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def _raw_decode(self, tokens: Sequence[int]) -> str:
        """The text that the model's own tokenizer gives for `tokens`."""
        return str(
            self._tokenizer.decode(
                list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def _measure_left_context(self) -> tuple[list[int], list[_LeftContext]]:
        """What must precede a text so that it is treated as the middle of a longer one.

        Tokenizers in the manner of sentencepiece put a space before every text, and remove it when
        they decode. For others nothing is needed.
        """
        letter = self._raw_encode("x")
        spaced = self._raw_encode(" x")
        if self._raw_decode(letter * 2) == "xx" and self._raw_decode(spaced) == " x":
            return [], []
        return letter, [_LeftContext(text, self._raw_encode(text)) for text in _LEFT_CONTEXTS]

    def _encode(self, text: str, contexts: Sequence[_LeftContext]) -> list[int]:
        """As `encode`, for text that comes after one of `contexts`."""
        text = _without_surrogates(text)
        cuts = [start + 1 for start, _ in self._added.find(text)]  # one inside every added token
        tokens: list[int] = []
        for start, end in pairwise([0, *cuts, len(text)]):
            tokens += self._encode_part(text[start:end], contexts)
            contexts = self._contexts
        return tokens

    def _encode_part(self, part: str, contexts: Sequence[_LeftContext]) -> list[int]:
        """The ids of text that spells no added token; halved while normalising it makes one."""
        tokens = self._encode_after(part, contexts)
        if self._forbidden.isdisjoint(tokens):
            return tokens
        if len(part) <= 1:
            return [token for token in tokens if token not in self._forbidden]
        half = len(part) // 2
        first, second = part[:half], part[half:]
        return self._encode_part(first, contexts) + self._encode_part(second, self._contexts)

    def _encode_after(self, part: str, contexts: Sequence[_LeftContext]) -> list[int]:
        """The ids of `part` after the first context whose own ids it does not change."""
        for context in contexts:
            tokens = self._raw_encode(context.text + part)
            length = len(context.ids)
            if tokens[:length] == context.ids:
                return tokens[length:]
        return self._raw_encode(part)

    # Conversations

    def _knows(self, tags: ThinkingTags) -> bool:
        """Whether the vocabulary holds these tags and the chat template uses them."""
        return all(tag in self._added.ids for tag in tags) and tags.close in (self._template or "")

    def _default_opening(self) -> str:
        """What the tokenizer puts before a text by default: its first token, or nothing."""
        first = self._tokenizer.encode("x")[:1]
        return str(self._tokenizer.bos_token) if first == [self._tokenizer.bos_token_id] else ""

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], think: bool
    ) -> list[str]:
        """A rendered conversation in pieces: the template's words, outside text, and so on in turn.

        Raises:
            ChatTemplateError: The template fails, or leaves out a message.
        """
        placeholders = Placeholders(self._template or "")
        hidden = [{**placeholders.hide(message), "role": message["role"]} for message in messages]
        options: dict[str, Any] = {}
        if self.thinking:  # templates have two names for this option
            options = {"enable_thinking": think, "thinking": think}
        try:
            rendered = str(
                self._tokenizer.apply_chat_template(
                    hidden,
                    chat_template=self._template,
                    tools=[placeholders.hide(tool) for tool in tools] or None,
                    tokenize=False,
                    add_generation_prompt=True,
                    **options,
                )
            )
        except Exception as error:  # a template is code: it may raise anything
            roles = ", ".join(message["role"] for message in messages)
            raise ChatTemplateError(
                f"The model's chat template cannot hold a conversation of {roles}: {error}. "
                "Leave out what it refuses, or set another tokenizer.chat_template."
            ) from error
        for message, stand_in in zip(messages, hidden, strict=True):
            # Some templates leave out the text of a message that calls tools.
            outside = [stand_in["content"], stand_in.get("tool_calls")]
            if not placeholders.survive(outside, rendered):
                raise ChatTemplateError(
                    f"The model's chat template loses what the {message['role']} says, "
                    f"{message['content'][:40]!r}: give it another role, "
                    "or set another tokenizer.chat_template."
                )
        pieces = placeholders.reveal(rendered)
        return [*pieces[:-1], self._set_thinking(pieces[-1], think)]

    def _set_thinking(self, tail: str, think: bool) -> str:
        """The template's last words, changed to leave thinking open or closed."""
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
        """The ids of the pieces that `_render` gives.

        Added tokens among the template's words become control tokens. The text between two of them
        is plain, whether the template or somebody else wrote it. It is tokenised in one go, as the
        model saw it in training.
        """
        tokens: list[int] = []
        contexts: list[_LeftContext] = []
        text = ""
        for index, piece in enumerate(pieces):
            end = 0
            for start, token in () if index % 2 else self._added.find(piece):
                if start < end:
                    continue  # inside the token before it
                control = [self._added.ids[token]]
                tokens += self._encode(text + piece[end:start], contexts) + control
                contexts = [_LeftContext(token, control), *self._contexts] if self._contexts else []
                text, end = "", start + len(token)
                if token in self._right_stripping:
                    end += len(piece[end:]) - len(piece[end:].lstrip())
            text += piece[end:]
        return tokens + self._encode(text, contexts)


class Detokenizer:
    """Turns one growing stream of tokens into text; holds back incomplete characters.

    Args:
        tokenizer: The tokenizer of the model that writes the stream.
    """

    def __init__(self, tokenizer: TeamTokenizer) -> None:
        self._tokenizer = tokenizer
        self._replacement = tokenizer.encode(_INCOMPLETE)  # complete where a text itself holds it
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        held = self._held
        held.append(token)
        text = self._tokenizer.decode(held)
        complete = held[-len(self._replacement) :] == self._replacement
        if text.endswith(_INCOMPLETE) and not complete and len(held) < _MAX_HELD:
            return ""
        self._held = []
        return text

    def flush(self) -> str:
        """The text that is held back, as it stands."""
        held, self._held = self._held, []
        return self._tokenizer.decode(held) if held else ""


class _LeftContext(NamedTuple):
    """A text that precedes another while that is tokenised, and its own ids."""

    text: str
    ids: list[int]


class _AddedTokens:
    """The added tokens, except single characters and white space, and where a text spells them."""

    def __init__(self, added: Mapping[str, int]) -> None:
        # Sentencepiece writes a space as "▁", and Gemma has runs of them among the added tokens.
        long = {text: index for text, index in added.items() if len(text) > 1}
        self.ids = {text: index for text, index in long.items() if text.replace("▁", " ").strip()}
        self._lengths: dict[str, list[int]] = {}  # by first character, longest first
        for first, length in sorted({(text[0], len(text)) for text in self.ids}, reverse=True):
            self._lengths.setdefault(first, []).append(length)
        self._first = re.compile("|".join(map(re.escape, self._lengths)) or "(?!)")

    def find(self, text: str) -> Iterator[tuple[int, str]]:
        """Every index where a token begins, with the longest such token; they may overlap."""
        for match in self._first.finditer(text):
            start = match.start()
            candidates = (text[start : start + length] for length in self._lengths[match[0]])
            token = next((candidate for candidate in candidates if candidate in self.ids), None)
            if token is not None:
                yield start, token


def _without_surrogates(text: str) -> str:
    """Valid Unicode: JSON may bring lone surrogates, which no tokenizer accepts."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
