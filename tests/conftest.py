from __future__ import annotations

import torch
from hypothesis import settings

# The tests' models are tiny: more threads would only wait for each other.
torch.set_num_threads(1)

# On a busy machine an example may take any time: speed is for the benchmarks to show.
settings.register_profile("locore", deadline=None)
settings.load_profile("locore")
