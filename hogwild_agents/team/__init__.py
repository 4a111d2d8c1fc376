"""The team: what workers say to one another, and when. Knows nothing of chat models."""

from hogwild_agents.team.answers import AnswerFormat
from hogwild_agents.team.events import (
    AnswerFound,
    Event,
    Finished,
    InterruptAnswered,
    InterruptAsked,
    Interruption,
    Note,
    NoteRead,
    ReplyToken,
    Result,
    Snapshot,
    SnapshotTaken,
    Started,
    Step,
    StepBegun,
    StepCommitted,
    ThinkingEnded,
    Timings,
    Token,
)
from hogwild_agents.team.interrupts import Interrupt, InterruptContext
from hogwild_agents.team.layouts import Layout, TeamBlocks
from hogwild_agents.team.prompts import CollaborationPrompt
from hogwild_agents.team.redundancy_check import RedundancyCheck
from hogwild_agents.team.session import Session
from hogwild_agents.team.team import Team
from hogwild_agents.team.tokenizer import TeamTokenizer

__all__ = [
    "AnswerFormat",
    "AnswerFound",
    "CollaborationPrompt",
    "Event",
    "Finished",
    "Interrupt",
    "InterruptAnswered",
    "InterruptAsked",
    "InterruptContext",
    "Interruption",
    "Layout",
    "Note",
    "NoteRead",
    "RedundancyCheck",
    "ReplyToken",
    "Result",
    "Session",
    "Snapshot",
    "SnapshotTaken",
    "Started",
    "Step",
    "StepBegun",
    "StepCommitted",
    "Team",
    "TeamBlocks",
    "TeamTokenizer",
    "ThinkingEnded",
    "Timings",
    "Token",
]
