"""Profiles: what a model's configuration says of it."""

from __future__ import annotations

import json
from pathlib import Path

from hogwild_agents.langchain.profiles import profile_of
from hogwild_agents.names import POCKET


def test_profiles(tmp_path: Path) -> None:
    """The longest input comes from the configuration; a model that is not here has no profile."""
    assert profile_of("Qwen/Qwen3-8B") is None
    assert (profile_of(POCKET) or {})["max_input_tokens"] > 0
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"text_config": {"max_position_embeddings": 99}}))
    assert (profile_of(str(tmp_path)) or {})["max_input_tokens"] == 99
