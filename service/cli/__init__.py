"""The command line."""

import os

# numpy's OpenBLAS threads wait for work by spinning, on the cores that torch computes on: a
# training step takes up to four times as long. numpy's share of the work here is small.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
