"""Streams the thoughts of two workers, and the reply.

python examples/streaming.py
"""

from hogwild_agents import ChatHogwild

TASKS = "Solve these tasks.\n(a) 4731 + 2869\n(b) sort wako bifa tuno\n(c) count a in banana"


def main() -> None:
    """Prints each step when its worker has finished it, then the reply."""
    thoughts: dict[int, str] = {}
    names: dict[int, str] = {}
    for chunk in ChatHogwild(workers=2).stream(TASKS):
        for block in chunk.content_blocks:
            if block["type"] == "reasoning":  # its index is the worker's place in the team
                place = int(block["index"])
                names[place] = block.get("extras", {}).get("worker", names.get(place, ""))
                thoughts[place] = thoughts.get(place, "") + block["reasoning"]
                *done, thoughts[place] = thoughts[place].split("\n\n")
                for step in done:
                    print(f"{names[place]}: {step}")
            elif block["type"] == "text":
                print(f"Reply: {block['text']}")


if __name__ == "__main__":
    main()
