"""A team as a LangChain chat model, in three lines.

python examples/quickstart.py
"""

from hogwild_agents import ChatHogwild

TASKS = """Solve these tasks.
(a) 4731 + 2869
(b) reverse nirok
(c) largest of 7, 621, 58"""


def main() -> None:
    """Asks the pocket model, which ships with the package and solves only tasks like these."""
    model = ChatHogwild(workers=3)  # model="path/or/hub-name" for any other
    message = model.invoke(TASKS)
    print(message.text)
    print(f"{message.response_metadata['passes']} forward passes, {message.usage_metadata}")


if __name__ == "__main__":
    main()
