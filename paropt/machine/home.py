"""Where paropt keeps what it needs on this machine; light, because completion asks at every key."""

from __future__ import annotations

import os
from pathlib import Path

# where root keeps what the user must reach as whom its server runs
SYSTEM_ROOT = Path("/var/lib/paropt")


def paropt_home() -> Path:
    """``PAROPT_HOME``, else the place where this user's programs keep their data.

    For root that is ``/var/lib/paropt``: the server runs as another user, who can't enter
    ``/root``.
    """
    named = os.environ.get("PAROPT_HOME")
    if named:
        return Path(named).expanduser().absolute()
    if os.geteuid() == 0:
        return SYSTEM_ROOT
    share = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(share).expanduser().absolute() / "paropt"
