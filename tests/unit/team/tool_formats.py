"""Chat templates with tools, the format in which each writes calls, and tokenizers with them."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from hogwild_agents.team.tokenizer import TeamTokenizer
from hogwild_agents.team.tool_format import HERMES, ToolCallFormat
from tests.unit.team import tokenizers as small

QWEN = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}
{{- '# Tools\\n\\n<tools>' }}
{%- for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}
{{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{{- '<|im_end|>\\n' }}
{%- elif message.role != 'system' or not loop.first %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{%- if call.function %}{% set call = call.function %}{% endif %}
{{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
{{- call.arguments if call.arguments is string else call.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
"""As Qwen 2.5 and 3 have it: whole tools as JSON."""

HERMES_2 = """\
{%- macro python(spec) %}
{%- set names = {'string': 'str', 'number': 'float', 'integer': 'int', 'boolean': 'bool'} %}
{%- if spec.type is string and spec.type in names %}{{ names[spec.type] }}
{%- elif spec.type == 'array' %}{{ 'list[' + python(spec['items']) + ']' }}
{%- elif spec.type == 'object' %}{{ 'dict' }}
{%- else %}{{ 'Any' }}{% endif %}
{%- endmacro %}
{{- '<|im_start|>system\\n<tools>' }}
{%- for tool in tools or [] %}
{%- set function = tool.function %}
{{- '\\n' + function.name + '(' }}
{%- for name, spec in function.parameters.properties.items() %}
{{- name + ': ' + python(spec) + ('' if name in function.parameters.required else ' = None') }}
{%- if not loop.last %}{{ ', ' }}{% endif %}
{%- endfor %}
{{- ') - ' + function.description + ' ' + (function | tojson) }}
{%- endfor %}
{{- '</tools><|im_end|>\\n' }}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
"""As Hermes 2 Pro has it: signatures, made from types and from what is required."""

LLAMA = """\
{{- bos_token }}
{%- for message in messages %}
{%- set role = 'ipython' if message.role == 'tool' else message.role %}
{{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}
{%- if loop.first and tools is not none %}
{{- 'Given the following functions, reply with a JSON for a call.\\n\\n' }}
{%- for tool in tools %}{{ tool | tojson(indent=4) }}{{ '\\n\\n' }}{% endfor %}
{%- endif %}
{%- if message.tool_calls %}
{%- if message.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}
{%- set call = message.tool_calls[0].function %}
{{- '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}' }}
{%- elif message.role == 'tool' %}
{{- message.content | tojson }}
{%- else %}
{{- message.content | trim }}
{%- endif %}
{{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
"""As Llama 3.1 has it: tools with indents in the first message, and one call at a time."""

MISTRAL = """\
{{- bos_token }}
{%- if tools %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '[INST]' + message.content + '[/INST]' }}
{%- elif message.role == 'tool' %}
{%- if message.tool_call_id | length != 9 %}{{ raise_exception('nine characters') }}{% endif %}
{{- '[TOOL_RESULTS]' + message.content + '[/TOOL_RESULTS]' }}
{%- else %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}
{%- if call.id | length != 9 %}{{ raise_exception('nine characters') }}{% endif %}
{{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + (call.function.arguments | tojson) }}
{%- endfor %}
{{- eos_token }}
{%- endif %}
{%- endfor %}"""
"""As Mistral Small 3.1 has it: nothing closes a call."""

MISTRAL_LIST = MISTRAL.replace(
    "'[TOOL_CALLS]' + call.function.name + '[ARGS]' + (call.function.arguments | tojson)",
    """'[TOOL_CALLS][{"name": "' + call.function.name + '", "arguments": '
    + (call.function.arguments | tojson) + ', "id": "' + call.id + '"}]'""",
)
"""As Mistral 7B v0.3 has it: an id after the arguments."""

DEEPSEEK = """\
{{- bos_token }}
{%- for tool in tools or [] %}{{ tool | tojson + '\\n' }}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '<|User|>' + message.content }}
{%- elif message.role == 'tool' %}
{{- '<|tool_output_begin|>' + message.content + '<|tool_output_end|>' }}
{%- else %}
{{- '<|Assistant|>' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<|tool_calls_begin|>' if loop.first else '\\n' }}
{{- '<|tool_call_begin|>function<|tool_sep|>' + call.function.name + '\\n```json\\n' }}
{{- (call.function.arguments | tojson) + '\\n```<|tool_call_end|>' }}
{{- '<|tool_calls_end|>' if loop.last }}
{%- endfor %}
{{- eos_token }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif %}"""
"""As DeepSeek V3 has it: marks around all calls, and around each."""

XML = QWEN.replace(
    """{{- call.arguments if call.arguments is string else call.arguments | tojson }}
{{- '}\\n</tool_call>' }}""",
    """{%- for key, value in call.arguments | items %}
{{- '<parameter=' + key + '>\\n' ~ value ~ '\\n</parameter>' }}
{%- endfor %}
{{- '</function>\\n</tool_call>' }}""",
)
"""As Qwen3-Coder has it: no JSON."""

PYTHON = QWEN.replace(
    """{{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
{{- call.arguments if call.arguments is string else call.arguments | tojson }}
{{- '}\\n</tool_call>' }}""",
    """{{- '[' + call.name + '(' }}
{%- for key, value in call.arguments | items %}{{ key ~ '=' ~ value }}{% endfor %}
{{- ')]' }}""",
)
"""As Llama 4 has it: calls of functions in Python."""

STRICT = QWEN.replace(
    "{%- if message.role == 'tool' %}",
    "{%- if message.tool_calls and loop.last %}{{ raise_exception('results are missing') }}{% endif"
    " %}\n{%- if message.role == 'tool' %}",
)
"""Where a call must have its result."""

THOUGHTFUL = QWEN.replace(
    "message.role + '\\n' + message.content }}",
    "message.role + '\\n' + ('<think>\\n\\n</think>\\n\\n' if message.role == 'assistant' else '')"
    " + message.content }}",
)
"""As Qwen3 has it in some versions: no call without thoughts before it."""

COMPACT = QWEN.replace(
    "call.arguments | tojson }}", "call.arguments | tojson(separators=(',', ':')) }}"
)
"""Without white space in arguments."""

_MARKS = {
    "mistral": "[AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [INST] [/INST] [TOOL_CALLS] [ARGS] "
    "[TOOL_RESULTS] [/TOOL_RESULTS]",
    "deepseek": "<|User|> <|Assistant|> <|tool_calls_begin|> <|tool_calls_end|> "
    "<|tool_call_begin|> <|tool_call_end|> <|tool_sep|> <|tool_output_begin|> <|tool_output_end|>",
}
_TEMPLATES = {
    "qwen": QWEN,
    "hermes": HERMES_2,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "mistral_list": MISTRAL_LIST,
    "deepseek": DEEPSEEK,
    "xml": XML,
    "python": PYTHON,
    "strict": STRICT,
    "thoughtful": THOUGHTFUL,
    "compact": COMPACT,
}
FORMATS = {
    "qwen": HERMES,
    "llama": ToolCallFormat('{"name": "', '", "parameters": ', "}", None),
    "mistral": ToolCallFormat("[TOOL_CALLS]", "[ARGS]", "", "[TOOL_CALLS]"),
    "deepseek": ToolCallFormat(
        "<|tool_calls_begin|><|tool_call_begin|>function<|tool_sep|>",
        "\n```json\n",
        "\n```<|tool_call_end|><|tool_calls_end|>",
        "\n```<|tool_call_end|>\n<|tool_call_begin|>function<|tool_sep|>",
    ),
    "strict": HERMES,
    "thoughtful": HERMES,
    "compact": HERMES._replace(separators=(",", ":")),
}

letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | letters,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(letters, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(letters, values, max_size=3)
calls = st.lists(st.tuples(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), arguments), max_size=3)


@cache
def own(name: str) -> PreTrainedTokenizerFast:
    """A model's tokenizer, with the marks of its template among its tokens."""
    found = small.llama3_like() if name == "llama" else small.byte_level()
    marks = _MARKS.get(name.partition("_")[0], "").split()
    found.add_tokens([AddedToken(mark, special=True) for mark in marks])
    found.chat_template = _TEMPLATES[name]
    return found


@cache
def team(name: str) -> TeamTokenizer:
    """The same tokenizer for a team."""
    return TeamTokenizer(own(name))


def called(made: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """A message that makes calls."""
    listed = [
        {"type": "function", "id": f"call0000{n}", "function": {"name": name, "arguments": given}}
        for n, (name, given) in enumerate(made)
    ]
    return {"role": "assistant", "content": "", "tool_calls": listed}
