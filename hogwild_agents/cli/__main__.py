"""Lets `python -m hogwild_agents.cli` run the command `hogwild`."""

from hogwild_agents.cli import main

main()
