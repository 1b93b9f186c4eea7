"""Print what pyproject.toml asks for, torch and our own packages aside: `requirements.py EXTRA,…`.

So that the layer of a Dockerfile that installs packages stays the same while the code changes.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted = list(project["dependencies"])
for extra in filter(None, sys.argv[1].split(",")):
    if extra not in project["optional-dependencies"]:
        sys.exit(f"pyproject.toml has no extra {extra}")
    wanted += project["optional-dependencies"][extra]
apart = ("torch>=", "locore-client==")
sys.stdout.writelines(f"{line}\n" for line in wanted if not line.startswith(apart))
