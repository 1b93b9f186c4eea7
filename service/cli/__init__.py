"""The command line."""

import os

from service.machine.cores import usable_cores

# All are read when numpy and torch are imported. torch itself counts the machine's cores. Threads
# that wait for work by spinning take the cores that others need. numpy's OpenBLAS has little to do
# here, but made a training step up to four times as long; torch's threads kept the event loop and
# the store waiting between two passes.
os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
