"""A Ray of one machine, of which nothing is left when its block ends."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.service import free_port
from tests.slow.deploy_tools import ROOT, comes_true

BIN = ROOT / "build" / "ray-venv" / "bin"


@dataclass(frozen=True)
class RayCluster:
    """`log`: what its processes said; `sessions`: of the processes that were started for it, and
    so of all that these start."""

    log: Path
    sessions: list[int]

    @property
    def address(self) -> str:
        """Ray takes the machine's own address, whatever it is told; empty until it is up."""
        output = self.log.read_text() if self.log.exists() else ""
        match = re.search(r"ray start --address='([^']+)'", output)
        return match[1] if match else ""

    @contextmanager
    def running(self, *command: object) -> Iterator[subprocess.Popen[bytes]]:
        """A program of Ray's environment, in the repository, that talks to this cluster."""
        address = self.address
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env=environment() | ({"RAY_ADDRESS": address} if address else {}),
                stdout=log,
                stderr=log,
                start_new_session=True,
                # A shell that runs the tests in the background has Ctrl-C ignored, in all of them.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.sessions.append(process.pid)
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)

    def processes(self, title: str = "") -> list[int]:
        """Those of this cluster whose command line begins with `title`."""
        return [pid for pid in _of_sessions(self.sessions) if _command(pid).startswith(title)]


def environment() -> dict[str, str]:
    """Without what the caller's own LOCORE_ and RAY_ variables would change."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("LOCORE_", "RAY_"))}
    return environment | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Autoscaling looks every ten seconds otherwise.
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    }


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """Two CPUs by Ray's count, a small object store, no dashboard."""
    assert BIN.exists(), "no Ray: run tests/slow/install_ray.sh"
    # Not pytest's folder: Ray's sockets lie here, and their paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="locore-ray-", dir="/tmp"))
    cluster = RayCluster(folder / "log.txt", [])
    command = [
        *(BIN / "ray", "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--port={free_port()}", f"--temp-dir={folder}"),
        *("--num-cpus=2", f"--object-store-memory={100 << 20}", "--include-dashboard=false"),
        *(f"--{name}={free_port()}" for name in _PORTS),
    ]
    try:
        with cluster.running(*command) as head:
            assert comes_true(lambda: _up(cluster, head), 60), cluster.log.read_text()
            yield cluster
    finally:
        _kill(cluster.sessions)
        shutil.rmtree(folder, ignore_errors=True)


_PORTS = (
    "metrics-export-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "ray-client-server-port",
)


def _up(cluster: RayCluster, head: subprocess.Popen[bytes]) -> bool:
    assert head.poll() is None, cluster.log.read_text()
    return "Ray runtime started" in cluster.log.read_text()


def _kill(sessions: list[int]) -> None:
    until = time.monotonic() + 30
    while (remaining := _of_sessions(sessions)) and time.monotonic() < until:
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _of_sessions(sessions: list[int]) -> list[int]:
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # pid (name) state parent group session …
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if state != "Z" and int(session) in sessions:
                processes.append(int(folder.name))
    return processes


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""
