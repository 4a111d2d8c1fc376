"""LangChain's standard integration tests, on the pocket model: a team, and one worker alone."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests, ToolsIntegrationTests

from hogwild_agents import ChatHogwild, TeamTool
from hogwild_agents.pocket import FOLDER


class TestChatHogwild(ChatModelIntegrationTests):
    """Two workers."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatHogwild

    @property
    def model_override_value(self) -> str:
        return str(FOLDER)

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def enable_vcr_tests(self) -> bool:
        return True  # nothing goes over the network, so there is nothing to record

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True


class TestOneWorker(TestChatHogwild):
    """A plain chat model."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"workers": 1}


class TestTeamTool(ToolsIntegrationTests):
    """A team as a tool."""

    @property
    def tool_constructor(self) -> type[TeamTool]:
        return TeamTool

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"problem": "Solve these tasks.\n(a) 17 + 25"}
