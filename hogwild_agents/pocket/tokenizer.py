"""The pocket model's tokenizer: bytes, and the words that its teams use most.

It can encode any text. Outside of those words every digit and every letter is one token, so the
model sees each sign that it calculates with or spells.
"""

from __future__ import annotations

import re
from typing import Any, cast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hogwild_agents.names import NAMES
from hogwild_agents.pocket.tasks import LABELS
from hogwild_agents.team import steps
from hogwild_agents.team.prompts import STRUCTURE
from hogwild_agents.team.redundancy_check import QUESTION

CONTEXT = 4096
"""Length of the model's context in tokens."""

END, USER, TEAM, SYSTEM = "<|end|>", "<|user|>", "<|team|>", "<|system|>"
TOOLS, RESULT = "<|tools|>", "<|result|>"
SPECIAL = (END, USER, TEAM, SYSTEM, TOOLS, RESULT)

TEMPLATE = """\
{%- if tools %}<|tools|>
{%- for tool in tools %}{% set tool = tool.function %}
{%- set parameters = tool.parameters or {} %}
{{- tool.name }}(
{%- for name, given in (parameters.properties or {}).items() %}
{{- name }}{% if name not in (parameters.required or []) %}?{% endif %}: {% if given.enum %}
{{- given.enum | tojson }}
{%- elif given.type is string and not (given.properties or 'items' in given) %}{{ given.type }}
{%- else %}{{ given | tojson }}{% endif %}{% if not loop.last %}, {% endif %}
{%- endfor %}){% if tool.description %}: {{ tool.description }}{% endif %}
{{- '\n' }}
{%- endfor %}<|end|>
{%- endif %}
{%- set marks = {'user': '<|user|>', 'assistant': '<|team|>', 'system': '<|system|>',
    'tool': '<|result|>'} %}
{%- for message in messages %}
{{- marks[message.role] }}{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\n{"name": ' }}{{ call.function.name | tojson }}, "arguments": {# #}
{{- call.function.arguments | tojson }}{{ '}\n</tool_call>' }}
{%- endfor %}<|end|>
{%- endfor %}
{%- if add_generation_prompt %}<|team|>{% endif %}"""
"""Shows each tool as a signature on one line; calls have the format of Hermes and Qwen."""

WORDS = (
    *NAMES,
    *(form.format(label) for label in LABELS for form in ("({}) ", "({})", ", ({}) ")),
    *(header + steps.SEPARATOR for header in steps.HEADERS),
    steps.PAUSE + steps.SEPARATOR,
    steps.NOTE_LABEL,
    QUESTION,
    *("**", " [", "]:** ", ".\n\n", "\n\n", "\\boxed{", "}.\n\n", " ..."),
    *(" + ", " - ", ": ", ", ", ". ", "+", "-", "=", "<", ">", "~", " or "),
    *("Solve these tasks.", "largest of ", "smallest of ", "reverse ", "sort ", "count ", " in "),
    *("compare ", " and ", " borrow", " digits", ", so ", "yes, ", "no, ", "wait, ", " has "),
    *("I take ", "check ", ", right", ", wrong", "wait"),
    *('<tool_call>\n{"name": "', '", "arguments": {', "}}\n</tool_call>", '"}}\n</tool_call>'),
    *('": ', '": "', '", "', ', "', '{"', '"}', "?: ", "): ", "The ", "a ", "the "),
    *("call", "reply", "string", "integer", "number", "boolean", "true", "false", "null", "none"),
    *("tool", "JSON"),
    *(STRUCTURE, '": {"type": "', '"properties": {"', '"required": ["', '"type": "object"'),
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Builds the tokenizer; every call gives the same one."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["".join(part for part, _ in byte_level.pre_tokenize_str(word)) for word in WORDS]
    vocabulary = list(dict.fromkeys([*letters, *words]))
    tokenizer = Tokenizer(
        models.BPE({token: i for i, token in enumerate(vocabulary)}, [], ignore_merges=True)
    )
    longest_first = sorted(WORDS, key=len, reverse=True)
    pattern = Regex("|".join([*map(_whole, longest_first), r"[\s\S]"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, behavior="isolated"), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in SPECIAL])
    wrap: Any = PreTrainedTokenizerFast
    return cast(
        "PreTrainedTokenizerFast",
        wrap(
            tokenizer_object=tokenizer,
            eos_token=END,
            pad_token=END,
            chat_template=TEMPLATE,
            model_max_length=CONTEXT,
        ),
    )


def _whole(word: str) -> str:
    """A pattern that matches a word, but not inside a longer word.

    The tokenizers library's regex engine does not know all escapes of `re.escape`.
    """
    pattern = re.escape(word).replace("\\\n", "\\n").replace("\n", "\\n")
    before = "(?<![A-Za-z0-9])" if word[0].isalpha() else ""
    after = "(?![A-Za-z0-9])" if word[-1].isalpha() else ""
    return before + pattern + after
