"""Settings of all tests of the pocket model."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
