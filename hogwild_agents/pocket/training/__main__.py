"""Trains the pocket model: `python -m hogwild_agents.pocket.training --out FOLDER`."""

import typer

from hogwild_agents.pocket.training.train import train

if __name__ == "__main__":
    typer.run(train)
