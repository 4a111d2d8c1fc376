"""LangChain's standard unit tests, on the chat model and on a team as a tool."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.unit_tests import ChatModelUnitTests, ToolsUnitTests

from hogwild_agents import ChatHogwild, TeamTool
from hogwild_agents.pocket import FOLDER


class TestChatHogwild(ChatModelUnitTests):
    """The chat model as it comes."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatHogwild

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        wanted = {"model": str(FOLDER), "device": "cpu"}
        return {f"HOGWILD_{name.upper()}": value for name, value in wanted.items()}, {}, wanted


class TestOneWorker(TestChatHogwild):
    """A plain chat model."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"workers": 1}


class TestTeamTool(ToolsUnitTests):
    """A team as a tool."""

    @property
    def tool_constructor(self) -> type[TeamTool]:
        return TeamTool

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"problem": "Solve these tasks.\n(a) 17 + 25"}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked up on the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
