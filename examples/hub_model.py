"""Any model from the Hugging Face hub or from a folder as a team.

python examples/hub_model.py Qwen/Qwen3-8B "How many primes are there below 100?"
"""

import sys

from hogwild_agents import ChatHogwild, FinalAnswer


def main(model: str = "pocket", question: str = "How many primes are there below 100?") -> None:
    """Asks two workers, and prints their thoughts, the reply and the answer."""
    chat = ChatHogwild(model=model, workers=2, budget=256, max_tokens=128, seed=1)
    message = chat.invoke(question)
    for thought in message.additional_kwargs.get("thoughts", []):
        print(f"--- {thought['worker']}\n{thought['text']}")
    print(f"--- reply\n{message.text}")
    print(f"--- answer: {FinalAnswer('boxed').invoke(message)}")
    print(message.response_metadata["passes"], "forward passes")


if __name__ == "__main__":
    main(*sys.argv[1:3])
