import asyncio
from collections.abc import Sequence

import pytest

from parityfl.coordinator.addresses import Addresses
from parityfl.core.errors import ConfigError
from parityfl.web.problems import ProblemError

NAMES = {
    "phone.example": ["10.1.2.3"],
    "Phone.Example": ["10.1.2.3"],
    "evil.example": ["169.254.169.254"],
    "mine.example": ["127.0.0.1"],
    "two.example": ["192.0.2.1", "10.7.7.7"],
    "localhost": ["::1", "127.0.0.1"],
}
REMOTE = "192.0.2.9"


def target(named: str | None, peer: str = REMOTE, allowed: Sequence[str] = ()) -> str:
    async def look_up(name: str) -> list[str]:
        return NAMES.get(name, [])

    return asyncio.run(Addresses(allowed, look_up).target(named, peer))


def refusal(named: str | None, peer: str = REMOTE, allowed: Sequence[str] = ()) -> str:
    with pytest.raises(ProblemError) as caught:
        target(named, peer, allowed)
    assert caught.value.status == 403
    return caught.value.detail


def test_the_senders_own_address_is_taken_by_default() -> None:
    assert target(None) == REMOTE
    assert target(REMOTE) == REMOTE
    assert target(None, "::ffff:192.0.2.9") == REMOTE
    assert target(None, "2001:db8::7") == "2001:db8::7"


@pytest.mark.parametrize("named", ["localhost", "127.0.0.1", "::1", "127.3.3.3"])
def test_on_this_machine_a_device_may_name_this_machine(named: str) -> None:
    assert target(named, "127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize("named", ["10.9.8.7", "phone.example", "mine.example", "127.0.0.1"])
def test_another_address_is_refused(named: str) -> None:
    assert f"--allow-host {named}" in refusal(named)


@pytest.mark.parametrize(
    ("named", "allowed", "expected"),
    [
        ("10.9.8.7", "10.9.8.7", "10.9.8.7"),
        ("10.9.8.7", "10.0.0.0/8", "10.9.8.7"),
        ("phone.example", "10.0.0.0/8", "10.1.2.3"),
        ("phone.example", "phone.example", "10.1.2.3"),
        ("Phone.Example", "phone.EXAMPLE", "10.1.2.3"),
        ("phone.example", "*", "10.1.2.3"),
        ("two.example", "10.0.0.0/8", "10.7.7.7"),
        ("2001:db8::1", "2001:db8::/32", "2001:db8::1"),
    ],
)
def test_listed_hosts_and_networks_are_called_at_their_address(named: str, allowed: str, expected: str) -> None:
    assert target(named, allowed=[allowed]) == expected


@pytest.mark.parametrize(
    "named",
    [
        "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "mine.example", "169.254.169.254", "fe80::1",
        "::ffff:169.254.169.254", "fd00:ec2::254", "fd00:ec2::254%1", "100.100.100.200", "169.254.1.1", "evil.example",
        "0.0.0.0", "::", "224.0.0.1",
    ],
)  # fmt: skip
def test_no_remote_device_is_at_loopback_link_local_or_metadata_addresses_whatever_is_allowed(named: str) -> None:
    assert "cannot be called there" in refusal(named, allowed=["*"])


def test_a_metadata_service_is_refused_also_where_its_network_is_listed() -> None:
    assert "metadata" in refusal("169.254.169.254", allowed=["169.254.0.0/16"])
    assert "metadata" in refusal(None, "169.254.169.254", allowed=["169.254.0.0/16"])
    assert target("169.254.1.1", allowed=["169.254.0.0/16"]) == "169.254.1.1"


def test_a_sender_on_the_link_needs_its_network_listed() -> None:
    assert "one link" in refusal(None, "169.254.3.3")
    assert target(None, "169.254.3.3", ["169.254.0.0/16"]) == "169.254.3.3"


def test_a_name_without_an_address_is_refused() -> None:
    assert "has no address" in refusal("nowhere.example", allowed=["*"])


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "10.0.0.1/8", "", " "])
def test_a_malformed_entry_is_a_mistake(entry: str) -> None:
    with pytest.raises(ConfigError, match="--allow-host"):
        Addresses([entry])
