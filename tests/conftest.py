from __future__ import annotations

import gc
import os

import torch
from hypothesis import settings

# Triton reads these when it is first imported, which torch's optimisers do. Without a GPU its
# kernels run on the CPU, interpreted; on one, products of float32 are not to be TF32.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
os.environ["TRITON_F32_DEFAULT"] = "ieee"

# Programs that the tests start by the hundred compile this project once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The tests' models are tiny: more threads would only wait for each other. `locore` takes all cores,
# also in this process, where the environment does not say how many.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# On a busy machine an example may take any time: speed is for the benchmarks to show.
settings.register_profile("locore", deadline=None)
settings.load_profile("locore")

# What is imported stays: to look for garbage among it takes a fifth of the collection of tests, and
# 0.4 seconds each time later.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
