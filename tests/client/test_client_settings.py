from pathlib import Path

import pytest

from parityfl.client.settings import Settings, parse_devices, server_url
from parityfl.core.errors import ConfigError
from parityfl.wire.schemas import MAX_DEVICES, DeviceReport, StatusUpdate


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("10.0.0.5", "http://10.0.0.5:8080"),
        ("coordinator", "http://coordinator:8080"),
        ("10.0.0.5:9000", "http://10.0.0.5:9000"),
        ("http://10.0.0.5:8080/", "http://10.0.0.5:8080"),
        ("https://fl.example.org", "https://fl.example.org"),
    ],
)
def test_a_server_may_be_a_host_or_a_url(text: str, url: str) -> None:
    assert server_url(text) == url


@pytest.mark.parametrize("text", ["", "ftp://host", "http://", "host:port", "a b"])
def test_a_malformed_server_is_one_clear_line(text: str) -> None:
    with pytest.raises(ConfigError, match="--server"):
        server_url(text)


@pytest.mark.parametrize("text", ["http://127.0.0.1:99999", "10.0.0.5:65536", "https://host:0"])
def test_a_servers_port_that_there_is_not(text: str) -> None:
    port = text.rpartition(":")[2]
    with pytest.raises(ConfigError, match=f"--server '{text}': there is no port {port}: .*1 to 65535"):
        server_url(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("h0", ("h0",)),
        ("h0,h2", ("h0", "h2")),
        ("h8..h11", ("h8", "h9", "h10", "h11")),
        ("h1..3, phone", ("h1", "h2", "h3", "phone")),
        ("cam08..cam11", ("cam08", "cam09", "cam10", "cam11")),
    ],
)
def test_devices_are_lists_and_ranges(text: str, names: tuple[str, ...]) -> None:
    assert parse_devices(text) == names


@pytest.mark.parametrize(
    "text", ["", "h0,,h1", "h0,h0", "h3..h1", "h0..g3", "h0..x", "h0..h999999", "my phone", "x" * 65]
)
def test_malformed_devices_are_one_clear_line(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_devices(text)


MANY = ",".join(f"h{k}" for k in range(MAX_DEVICES + 1))


@pytest.mark.parametrize("text", ["h0..h10000", "h0..h999999", "a0..a5000,b0..b5000", MANY], ids=len)
def test_a_process_has_no_more_devices_than_a_report_takes(text: str) -> None:
    assert len(parse_devices("h0..h9999")) == MAX_DEVICES
    StatusUpdate(devices=[DeviceReport(device_id=name, available=True) for name in parse_devices("h0..h9999")])
    with pytest.raises(ConfigError, match=r"names [\d,]+ devices, and one call takes at most 10,000: name the others"):
        parse_devices(text)


@pytest.mark.parametrize(
    ("server", "host", "listens"),
    [
        ("http://127.0.0.1:8080", None, "127.0.0.1"),
        ("http://localhost:8080", None, "127.0.0.1"),
        ("http://10.0.0.5:8080", None, "0.0.0.0"),
        ("http://[::1]:8080", None, "::1"),
        ("http://[fd00::5]:8080", None, "::"),
        ("http://10.0.0.5:8080", "10.0.0.7", "10.0.0.7"),
    ],
)
def test_devices_listen_where_the_coordinator_can_call(server: str, host: str | None, listens: str) -> None:
    assert Settings(server, ("h0",), host=host).listen_host == listens


@pytest.mark.parametrize("patience", [float("nan"), float("inf"), -1.0])
def test_patience_is_a_length_of_time(patience: float) -> None:
    with pytest.raises(ConfigError, match="--patience"):
        Settings("http://127.0.0.1:8080", ("h0",), patience_s=patience)


@pytest.mark.parametrize("advertise", ["", "my host", "http://host", "x" * 254])
def test_a_device_advertises_a_host(advertise: str) -> None:
    with pytest.raises(ConfigError, match="--advertise"):
        Settings("http://127.0.0.1:8080", ("h0",), advertise=advertise)


@pytest.mark.parametrize("below", ["", "h0"])
def test_a_state_folder_that_is_a_file(tmp_path: Path, below: str) -> None:
    file = tmp_path / "afile"
    file.touch()
    words = f"--state {file / below} needs a folder, and {file} is a file: choose another --state"
    with pytest.raises(ConfigError, match=words):
        Settings("http://127.0.0.1:8080", ("h0",), state=file / below)


def test_a_state_folder_may_be_there_or_not(tmp_path: Path) -> None:
    for state in (None, tmp_path, tmp_path / "new" / "h0"):
        assert Settings("http://127.0.0.1:8080", ("h0",), state=state).state == state
