"""Prompt, team and answer as one LangChain chain; each part is a runnable.

python examples/chain.py
"""

from langchain_core.prompts import ChatPromptTemplate

from hogwild_agents import ChatHogwild, CollaborationPrompt, FinalAnswer, RedundancyCheck

QUESTION = ChatPromptTemplate.from_messages([("human", "Solve these tasks.\n(a) {one}\n(b) {two}")])


def main() -> None:
    """Runs the chain on one input, then on two that share forward passes."""
    model = ChatHogwild(workers=2, prompt=None, interrupts=[RedundancyCheck(every=128)])
    chain = QUESTION | CollaborationPrompt(workers=2) | model | FinalAnswer("boxed")
    print(chain.invoke({"one": "4731 + 2869", "two": "reverse nirok"}))
    pairs = [{"one": f"{n} + {n * n}", "two": f"largest of {n}, 58, 7"} for n in (31, 62)]
    for answer in chain.batch(pairs):
        print(answer)


if __name__ == "__main__":
    main()
