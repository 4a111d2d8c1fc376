"""Replies that always fit a schema, because a grammar restricts the tokens.

python examples/structured_output.py
HOGWILD_MODEL=path/or/hub-name python examples/structured_output.py
"""

from pydantic import BaseModel, Field

from hogwild_agents import ChatHogwild


class Ticket(BaseModel):
    """A ticket."""

    title: str = Field(description="What it is about.")
    seats: int


def main() -> None:
    """Asks for an instance of the class, then for a call of it as a tool."""
    chat = ChatHogwild(workers=1)
    request = "Book a ticket: title Corka Wo, seats 12"
    print(chat.with_structured_output(Ticket).invoke(request))
    message = chat.bind_tools([Ticket], tool_choice="any").invoke(request)
    print(message.tool_calls[0]["args"])


if __name__ == "__main__":
    main()
