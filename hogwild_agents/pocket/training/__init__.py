"""How the pocket model is made: `python -m hogwild_agents.pocket.training --out FOLDER`.

`tasks`, `requests` and `dialogues` invent what users ask; `teacher` plays teams that answer it;
`lessons` chooses what is played; `packing` turns a session into one forward pass; `trainer` trains
on these, with the optimizer of `muon`; `train` is the command.
"""
