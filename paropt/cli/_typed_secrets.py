"""Secrets on the command line: everybody on a machine can see the words of a process, and only its
owner what is in its environment. So a command that was given one begins anew, without it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from paropt.errors import ParoptError

OPTIONS = ("--storage", "--notify", "--to", "--token")


def hide(arguments: Sequence[str]) -> None:
    """Begin anew with the secrets of ``arguments`` in the environment, if they are this process's
    own words: those of a caller within Python are seen by nobody."""
    if not any(word.partition("=")[0] in OPTIONS for word in arguments):
        return
    before = len(sys.orig_argv) - len(arguments)
    if sys.orig_argv[before:] != list(arguments):
        return
    kept, secrets = without_secrets(arguments, os.environ)
    if secrets:
        os.environ.update(secrets)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:before], *kept])


@dataclass
class _Hidden:
    """What the environment is to hold, and what of an option stays on the command line."""

    environment: Mapping[str, str]
    secrets: dict[str, str] = field(default_factory=dict)

    def storage(self, url: str) -> list[str]:
        from paropt.storage.connect import parse_url, without_password

        try:
            plain, password = without_password(parse_url(url))
        except ParoptError:  # which is told where it is used
            return [url]
        if password is None or "service" in plain.query or "PGSERVICE" in self.environment:
            return [url]  # a service's password comes before PGPASSWORD
        self.secrets["PGPASSWORD"] = password
        return [plain.set(drivername="postgresql").render_as_string(hide_password=False)]

    def notify(self, url: str) -> list[str]:
        from paropt.launch.news import ENVIRONMENT

        held = self.secrets.get(ENVIRONMENT, self.environment.get(ENVIRONMENT, ""))
        self.secrets[ENVIRONMENT] = f"{held}\n{url}".strip()
        return []

    def to(self, place: str) -> list[str]:
        if "@" not in place or "://" not in place:
            return [place]
        from paropt.vectors.places import URL

        self.secrets[URL] = place
        return []

    def token(self, text: str) -> list[str]:
        self.secrets["PAROPT_DASHBOARD_TOKEN"] = text
        return []


def without_secrets(
    arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """A command line without its secrets, and the variables that say them instead."""
    verb = next((word for word in arguments if not word.startswith("-")), "")
    hidden = _Hidden(environment)
    takers: dict[str, Callable[[str], list[str]]] = {"--storage": hidden.storage}
    if verb == "launch":
        takers["--notify"] = hidden.notify
    if verb == "embed" and not any(word.startswith("--to-file") for word in arguments):
        takers["--to"] = hidden.to
    if verb == "dashboard":
        takers["--token"] = hidden.token
    kept: list[str] = []
    rest = iter(arguments)
    for word in rest:
        option, equals, value = word.partition("=")
        given = value if equals else next(rest, None) if option in takers else None
        if option not in takers or given is None:
            kept.append(word)
            continue
        for stays in takers[option](given):
            kept += [option, stays]
    return kept, hidden.secrets
