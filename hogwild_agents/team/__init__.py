"""The team: what workers say to one another, and when. Knows nothing of chat models."""

from hogwild_agents.team.answers import AnswerFormat, InvalidAnswerFormatError
from hogwild_agents.team.conversations import ChatTemplateError, InvalidMessageError
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
from hogwild_agents.team.interrupts import (
    Interrupt,
    InvalidInterruptError,
    RedundancyCheck,
    Sight,
)
from hogwild_agents.team.layouts import InvalidLayoutError, Layout, TeamBlocks
from hogwild_agents.team.prompts import CollaborationPrompt, InvalidTeamError
from hogwild_agents.team.session import Session
from hogwild_agents.team.team import Team
from hogwild_agents.team.text import TeamTokenizer

__all__ = [
    "AnswerFormat",
    "AnswerFound",
    "ChatTemplateError",
    "CollaborationPrompt",
    "Event",
    "Finished",
    "Interrupt",
    "InterruptAnswered",
    "InterruptAsked",
    "Interruption",
    "InvalidAnswerFormatError",
    "InvalidInterruptError",
    "InvalidLayoutError",
    "InvalidMessageError",
    "InvalidTeamError",
    "Layout",
    "Note",
    "NoteRead",
    "RedundancyCheck",
    "ReplyToken",
    "Result",
    "Session",
    "Sight",
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
