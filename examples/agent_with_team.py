"""An agent that leaves hard problems to a team.

python examples/agent_with_team.py
python examples/agent_with_team.py path/or/hub-name "How many primes are there below 100?"
"""

import sys

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from hogwild_agents import ChatHogwild, TeamTool

PROBLEM = "Ask ask_team this: Solve these tasks. (a) 4731 + 2869 (b) reverse nirok"


def main(model: str = "pocket", problem: str = PROBLEM) -> None:
    """One worker decides, and a team of four does the work."""
    team = TeamTool(model=ChatHogwild(model=model, workers=4), deadline=60)
    agent = create_agent(ChatHogwild(model=model, workers=1), tools=[team])
    for message in agent.invoke({"messages": [HumanMessage(problem)]})["messages"]:
        print(f"{message.type:>5}: {message.text or message.tool_calls}")
        if message.type == "tool":
            print(f"       after {message.artifact['passes']} forward passes of the team")


if __name__ == "__main__":
    main(*sys.argv[1:3])
