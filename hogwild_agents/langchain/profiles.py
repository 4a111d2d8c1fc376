"""Model profiles: what LangChain can know about a model before it is loaded."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from langchain_core.language_models import ModelProfile

from hogwild_agents.registry import resolve_source


def profile_of(model: str) -> ModelProfile | None:
    """The inputs and outputs that a model supports; None if it is not on this machine's disk."""
    config = _config_of(model)
    if config is None:
        return None
    profile = ModelProfile(
        text_inputs=True,
        image_inputs=False,
        audio_inputs=False,
        video_inputs=False,
        pdf_inputs=False,
        image_tool_message=False,
        pdf_tool_message=False,
        text_outputs=True,
        reasoning_output=True,
        tool_calling=True,
        tool_choice=True,
        structured_output=True,
    )
    if "max_position_embeddings" in config:
        profile["max_input_tokens"] = config["max_position_embeddings"]
    return profile


@lru_cache(maxsize=16)
def _config_of(model: str) -> dict[str, Any] | None:
    """A model's configuration, with that of its text part on top."""
    file = Path(resolve_source(model)) / "config.json"
    if not file.is_file():
        return None
    config: dict[str, Any] = json.loads(file.read_text())
    return config | (config.get("text_config") or {})
