"""How long a slot waits: for the database, for its trainer, and for its own end."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Seconds: how long the database may be away, a trainer be silent, and leaving take."""

    outage: float = 600.0
    silence: float = 600.0
    grace: float = 20.0

    @classmethod
    def of_environment(cls) -> Limits:
        """``PAROPT_OUTAGE``, …: the fault suite makes them shorter than anybody should need."""
        named = {
            field.name: os.environ.get(f"PAROPT_{field.name.upper()}") for field in fields(cls)
        }
        return cls(**{name: float(value) for name, value in named.items() if value})
