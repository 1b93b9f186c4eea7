"""The command line."""

import os

from service.machine.cores import usable_cores

# numpy and torch read these on import. torch itself counts the machine's cores. Threads
# that spin while they wait for work take cores from others. numpy's OpenBLAS has little to do here,
# but made a training step up to four times as long; torch's threads delayed the event loop and the
# store between two passes.
os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
