"""The address that others are told is one that they can reach, found without asking a DNS."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from paropt.machine import address
from paropt.machine.address import address_for_others


@pytest.fixture(autouse=True)
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("a name was looked up")

    for name in ("getfqdn", "gethostbyname", "getaddrinfo", "gethostbyaddr"):
        monkeypatch.setattr(socket, name, refused)


@pytest.mark.parametrize("bound", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_what_only_this_machine_reaches(bound: str) -> None:
    assert address_for_others(bound) is None


@pytest.mark.parametrize("bound", ["10.1.2.3", "gpu7", "fd00::7"])
def test_what_was_said_is_kept(bound: str) -> None:
    assert address_for_others(bound) == bound


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
def test_of_all_addresses_one_is_told(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = address_for_others(bound)
    assert found not in (None, bound)
    if found != socket.gethostname():  # a machine without a way out has its name only
        assert not ipaddress.ip_address(found or "").is_loopback
        family = socket.AF_INET6 if ":" in (found or "") else socket.AF_INET
        with socket.socket(family) as mine:
            mine.bind((found, 0))  # it is one of ours
    monkeypatch.setattr(address, "_ELSEWHERE", ())
    assert address_for_others(bound) == socket.gethostname()
