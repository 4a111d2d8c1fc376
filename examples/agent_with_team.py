"""An agent that gives hard problems to a team. It needs `pip install -e '.[agents]'`.

python examples/agent_with_team.py
HOGWILD_MODEL=path/or/hub-name python examples/agent_with_team.py
"""

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from hogwild_agents import ChatHogwild, TeamTool

PROBLEM = "Ask ask_team: Solve these tasks. (a) 47 + 28 (b) reverse nirok"


def main() -> None:
    """A single worker calls the tool, and a team of four solves the tasks."""
    team = TeamTool(model=ChatHogwild(workers=4), deadline=60)
    agent = create_agent(ChatHogwild(workers=1), tools=[team])
    for message in agent.invoke({"messages": [HumanMessage(PROBLEM)]})["messages"]:
        print(f"{message.type:>5}: {message.text or message.tool_calls}")
        if message.type == "tool":
            print(f"       after {message.artifact['passes']} forward passes of the team")


if __name__ == "__main__":
    main()
