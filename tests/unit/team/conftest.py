"""What the tests of the team share: how events must tell the same story as the result."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
