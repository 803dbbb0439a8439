"""Certificates of a private authority, and a coordinator and devices that speak TLS with them."""

import asyncio
import re
import ssl
import stat
from pathlib import Path

import httpx
import pytest

from network import LAYOUT, RUN, NumpyWorkbench, run, small_config
from parityfl.client.serve import serve as serve_devices
from parityfl.client.settings import Settings
from parityfl.coordinator.fleet import HttpFleet
from parityfl.coordinator.serve import Service, serve
from parityfl.coordinator.trust import Trust
from parityfl.core.errors import ConfigError, FleetError, FolderError
from parityfl.engine.fleet import Observer
from parityfl.web.certificates import Authority, device_name, host_names
from parityfl.web.server import bind, port_of
from parityfl.web.tls import Tls
from parityfl.wire.signing import Token


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority; a certificate for the coordinator on loopback, and one for a device."""
    folder = tmp_path_factory.mktemp("fleet")
    authority = Authority.open(folder)
    authority.certify(folder / "coordinator", "coordinator", host_names(["127.0.0.1", "localhost"]), 1)
    authority.certify(folder / "h0", "device h0", [device_name("h0")], 1)
    return folder


def tls(fleet: Path, name: str) -> Tls:
    return Tls(fleet / f"{name}.pem", fleet / f"{name}.key", fleet / "authority.pem")


async def whole_run(tmp_path: Path, mine: Tls, theirs: Tls, token: Token | None, scheme: str = "") -> str:
    """Have a device join; return the address at which the coordinator calls it."""
    listening, called = bind("127.0.0.1", 0), ""

    async def drive(devices: HttpFleet, observer: Observer) -> None:
        nonlocal called
        member = devices.registry.at(0)
        called = member.url
        answer = await devices.devices.ask(member, "/initial", None, 2**16)
        assert answer.status == 200

    service = Service(min_clients=1, run_id=RUN, trust=Trust(token, tls=mine), folder=tmp_path)
    config = small_config(rounds={"clock": "wall", "heartbeat_s": 0.2})
    url = f"{scheme or mine.scheme}://127.0.0.1:{port_of(listening)}"
    devices = Settings(url, ("h0",), port=0, patience_s=1, token=token, tls=theirs)
    await asyncio.gather(serve(config, LAYOUT, drive, listening, service), serve_devices(devices, NumpyWorkbench))
    return called


@pytest.mark.parametrize("token", [None, Token("the token of this fleet")])
def test_both_sides_show_their_certificates(token: Token | None, fleet: Path, tmp_path: Path) -> None:
    called = run(whole_run(tmp_path, tls(fleet, "coordinator"), tls(fleet, "h0"), token))
    assert called.startswith("https://127.0.0.1:")


def test_a_coordinator_alone_may_have_a_certificate(fleet: Path, tmp_path: Path) -> None:
    mine = Tls(fleet / "coordinator.pem", fleet / "coordinator.key")
    called = run(whole_run(tmp_path, mine, Tls(authority=fleet / "authority.pem"), None))
    assert called.startswith("http://127.0.0.1:")


async def handshake(fleet: Path, caller: ssl.SSLContext) -> httpx.Response:
    """Ask a coordinator that wants to see certificates for its health."""
    listening, waiting = bind("127.0.0.1", 0), asyncio.Event()

    async def drive(devices: HttpFleet, observer: Observer) -> None:
        await waiting.wait()

    service = Service(run_id=RUN, trust=Trust(tls=tls(fleet, "coordinator")))
    config = small_config(rounds={"clock": "wall", "heartbeat_s": 0.1})
    serving = asyncio.create_task(serve(config, LAYOUT, drive, listening, service))
    try:
        async with httpx.AsyncClient(verify=caller) as http:
            return await http.get(f"https://127.0.0.1:{port_of(listening)}/health")
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def test_who_shows_no_certificate_of_the_authority_gets_no_connection(fleet: Path, tmp_path: Path) -> None:
    own = tls(fleet, "h0").calling()
    assert run(handshake(fleet, own)).status_code == 200
    stranger = Authority.open(tmp_path)
    stranger.certify(tmp_path / "h0", "device h0", [device_name("h0")], 1)
    for cert in (None, tmp_path / "h0.pem"):
        key = None if cert is None else tmp_path / "h0.key"
        with pytest.raises(httpx.TransportError):
            run(handshake(fleet, Tls(cert, key, fleet / "authority.pem").calling()))


def test_a_device_cannot_pass_for_the_coordinator(fleet: Path, tmp_path: Path) -> None:
    """Its certificate is of the same authority, but names no host; a false name is not believed either."""
    authority = Authority.open(fleet)
    authority.certify(tmp_path / "elsewhere", "coordinator", host_names(["10.0.0.5"]), 1)
    for name in (fleet / "h0", tmp_path / "elsewhere"):
        false = Tls(name.with_suffix(".pem"), name.with_suffix(".key"), fleet / "authority.pem")
        with pytest.raises(FleetError, match=r"no use of the coordinator.*certificate verify failed.*--tls-ca"):
            run(whole_run(tmp_path, false, tls(fleet, "h0"), None))


@pytest.mark.parametrize(
    ("mine", "theirs", "remedy"),
    [
        ("coordinator", "nobody", "it may speak TLS: write https:// in --server"),
        ("nobody", "nobody", "it does not speak TLS: write http:// in --server"),
        ("coordinator", "caller", "it may ask for a certificate: give --tls-cert and --tls-key"),
        ("coordinator", "stranger", "give the authority of the coordinator's certificate with --tls-ca"),
    ],
)
def test_a_device_is_told_how_it_should_call(mine: str, theirs: str, remedy: str, fleet: Path, tmp_path: Path) -> None:
    scheme = "http" if "https" in remedy else "https"
    known = {
        "nobody": Tls(),
        "coordinator": tls(fleet, "coordinator"),
        "caller": Tls(authority=fleet / "authority.pem"),
        "stranger": Tls(fleet / "h0.pem", fleet / "h0.key"),
    }
    with pytest.raises(FleetError, match=re.escape(remedy)):
        run(whole_run(tmp_path, known[mine], known[theirs], None, scheme))


def test_keys_are_for_their_owner_only(fleet: Path) -> None:
    keys = sorted(fleet.glob("*.key"))
    assert [key.name for key in keys] == ["authority.key", "coordinator.key", "h0.key"]
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


def test_an_authority_is_found_again(tmp_path: Path) -> None:
    assert Authority.open(tmp_path).certificate == Authority.open(tmp_path).certificate
    (tmp_path / "authority.key").write_text("scribble")
    with pytest.raises(FolderError, match=r"restore authority.pem and authority\.key"):
        Authority.open(tmp_path)


@pytest.mark.parametrize("host", ["", "a b", "http://x", "10.0.0.0/8"])
def test_a_malformed_host_is_a_mistake(host: str) -> None:
    with pytest.raises(ConfigError, match="--host"):
        host_names([host])


def test_files_that_do_not_go_together_are_a_mistake(fleet: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--tls-cert needs --tls-key"):
        Tls(cert=fleet / "h0.pem")
    with pytest.raises(ConfigError, match="--tls-key needs --tls-cert"):
        Tls(key=fleet / "h0.key")
    nothing, scribble = tmp_path / "nothing.pem", tmp_path / "scribble.pem"
    scribble.write_text("scribble")
    for files, message in (
        (
            (fleet / "h0.pem", fleet / "coordinator.key", None),
            r"--tls-key \S+coordinator.key cannot .*\(key values",
        ),
        ((scribble, fleet / "h0.key", None), r"--tls-cert \S+scribble.pem .* cannot be used \("),
        ((nothing, nothing, None), r"--tls-cert .* cannot be read \(No such file"),
        ((None, None, nothing), r"--tls-ca \S+nothing.pem cannot be read \(No such file"),
        ((None, None, scribble), r"--tls-ca \S+scribble.pem cannot be used \("),
    ):
        with pytest.raises(ConfigError, match=message):
            Tls(*files)
