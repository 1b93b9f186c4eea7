from __future__ import annotations

import torch

# The tests' models are tiny: more threads would only wait for each other.
torch.set_num_threads(1)
