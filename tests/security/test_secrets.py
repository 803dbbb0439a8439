"""Where secrets come from, which devices are enrolled, and what the command line says about both."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from parityfl.cli import main
from parityfl.client.identity import Credential
from parityfl.coordinator.enrolment import Enrolment, RefusedError
from parityfl.core.errors import ConfigError, FolderError
from parityfl.web.secrets import read_token

NAME = "PARITYFL_JOIN_TOKEN"
SECRET = "sixteen characters and more"
KEY, OTHER = "11" * 32, "22" * 32


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str]:
    """Return the exit code and what was printed."""
    monkeypatch.setattr(sys, "argv", ["parityfl", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, other = tmp_path / "token", tmp_path / "other"
    file.write_text(f"{SECRET}\n")
    other.write_text("another one of some length\n")
    assert read_token(NAME) is None
    monkeypatch.setenv(f"{NAME}_FILE", str(file))
    assert read_token(NAME).matches(SECRET)  # type: ignore[union-attr]
    monkeypatch.setenv(NAME, "from the environment itself\n")
    assert read_token(NAME).matches("from the environment itself")  # type: ignore[union-attr]
    assert read_token(NAME, other).matches("another one of some length")  # type: ignore[union-attr]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for file in (tmp_path / "nothing", tmp_path / "binary", tmp_path):
        with pytest.raises(ConfigError, match=str(file)):
            read_token(NAME, file)


def test_a_token_file_that_is_missing_is_one_line_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = tmp_path / "nothing"
    fault = "cannot be read (No such file or directory): name a file that holds the token and no more"
    with pytest.raises(ConfigError) as caught:
        read_token(NAME, nothing)
    assert str(caught.value) == f"the token file {nothing} {fault}"
    monkeypatch.setenv(f"{NAME}_FILE", str(nothing))
    with pytest.raises(ConfigError) as caught:
        read_token(NAME)
    assert str(caught.value) == f"{NAME}_FILE = {nothing} {fault}"


@pytest.mark.parametrize(
    ("name", "fault"), [("afile", "is a file"), ("afile/sub", "cannot be made, because {} is a file")]
)
def test_a_folder_of_certificates_where_a_file_is_is_one_line(
    name: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "afile"
    file.touch()
    code, said = command(capsys, monkeypatch, "certs", tmp_path / name, "--host", "10.0.0.5")
    assert (code, said) == (2, f"parityfl: {tmp_path / name} {fault.format(file)}: name another folder\n")


def test_a_short_token_is_refused_without_being_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2")
    with pytest.raises(ConfigError, match="has 7 characters") as caught:
        read_token(NAME, tmp_path / "token")
    assert "hunter2" not in str(caught.value)


def test_a_device_is_enrolled_with_one_credential(tmp_path: Path) -> None:
    enrolment = Enrolment(tmp_path)
    assert not enrolment.check("h0", KEY)
    enrolment.enrol("h0", KEY)
    assert enrolment.check("h0", KEY)
    with pytest.raises(RefusedError, match="devices allow"):
        enrolment.check("h0", OTHER)
    with pytest.raises(RefusedError, match="another credential"):
        enrolment.enrol("h0", OTHER)
    assert KEY not in (tmp_path / "security" / "devices.jsonl").read_text()


def test_changes_from_outside_are_noticed(tmp_path: Path) -> None:
    serving, operator = Enrolment(tmp_path), Enrolment(tmp_path)
    serving.enrol("h0", KEY)
    operator.revoke("h0")
    operator.revoke("h9")
    assert serving.revoked() == ["h0", "h9"]
    with pytest.raises(RefusedError, match="revoked"):
        serving.check("h0", KEY)
    operator.allow("h0")
    assert not serving.check("h0", OTHER)
    with pytest.raises(FolderError, match="has not joined"):
        operator.allow("h0")


def test_what_a_coordinator_has_written_it_does_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With thousands of devices that would be most of what a new one costs."""
    serving, reads, read = Enrolment(tmp_path), [], Path.read_bytes

    def counted(path: Path) -> bytes:
        reads.append(path.name)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    for name in ("h0", "h1"):
        serving.enrol(name, KEY)
        assert serving.check(name, KEY)
    assert reads == []
    Enrolment(tmp_path).revoke("h0")
    assert serving.revoked() == ["h0"]
    assert reads == ["devices.jsonl"] * 2


@pytest.mark.parametrize("content", ["", "[]", '{"h0": {}}', '{"a b": {"fingerprint": null, "since": ""}}', "{"])
def test_a_damaged_enrolment_lets_nobody_in(content: str, tmp_path: Path) -> None:
    Enrolment(tmp_path).enrol("h0", KEY)
    (tmp_path / "security" / "devices.jsonl").write_text(f"{content}\n")
    with pytest.raises(FolderError, match=r"devices\.jsonl cannot be read"):
        Enrolment(tmp_path).check("h0", KEY)


def test_a_file_that_is_damaged_later_leaves_every_device_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serving, file = Enrolment(tmp_path), tmp_path / "security" / "devices.jsonl"
    serving.enrol("h0", KEY)
    serving.revoke("h1")
    whole = file.read_bytes()
    file.write_bytes(whole[5:])
    assert [serving.check("h0", KEY), serving.is_revoked("h1"), serving.revoked()] == [True, True, ["h1"]]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    with pytest.raises(FolderError, match=r"devices\.jsonl cannot be read"):
        serving.enrol("h2", KEY)  # which would write over what somebody may want to mend
    file.write_bytes(whole)
    serving.enrol("h2", KEY)
    assert serving.check("h2", KEY)


def test_what_was_not_wholly_written_never_counted(tmp_path: Path) -> None:
    """The command was killed as it revoked h1, and has told nobody that it did."""
    serving, file = Enrolment(tmp_path), tmp_path / "security" / "devices.jsonl"
    serving.enrol("h0", KEY)
    serving.revoke("h1")
    file.write_bytes(file.read_bytes()[:-5])
    assert [serving.check("h0", KEY), serving.is_revoked("h1")] == [True, False]
    serving.revoke("h2")
    assert Enrolment(tmp_path).revoked() == ["h2"]


def test_a_new_device_costs_a_line_whoever_has_joined(tmp_path: Path) -> None:
    enrolment, file = Enrolment(tmp_path), tmp_path / "security" / "devices.jsonl"
    sizes = [0]
    for name in ("h0", "h1", "h2"):
        enrolment.enrol(name, KEY)
        sizes.append(file.stat().st_size)
    assert len(set(np.diff(sizes))) == 1


def test_the_coordinators_key_is_kept_until_the_run_is_over(tmp_path: Path) -> None:
    key = Enrolment(tmp_path).coordinator_key().public
    assert Enrolment(tmp_path).coordinator_key().public == key
    Enrolment(tmp_path).retire()
    assert Enrolment(tmp_path).coordinator_key().public != key
    (tmp_path / "security" / "coordinator.key").write_text("scribble")
    with pytest.raises(FolderError, match=r"coordinator\.key holds no key"):
        Enrolment(tmp_path).coordinator_key()


def test_devices_are_listed_revoked_and_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = command(capsys, monkeypatch, "devices", "list", tmp_path)
    assert (code, "no credentials" in said) == (2, True)
    (tmp_path / "config.json").write_text("{}")
    Enrolment(tmp_path).enrol("h0", KEY)
    assert command(capsys, monkeypatch, "devices", "revoke", tmp_path, "h0") == (0, "h0 is revoked\n")
    code, said = command(capsys, monkeypatch, "devices", "list", tmp_path)
    assert said.split()[:2] == ["h0", "revoked"]
    assert command(capsys, monkeypatch, "devices", "allow", tmp_path, "h0") == (0, "h0 may join anew\n")
    assert command(capsys, monkeypatch, "devices", "allow", tmp_path, "h0")[0] == 2
    assert command(capsys, monkeypatch, "devices", "revoke", tmp_path / "nothing", "h0")[0] == 2


def test_certificates_are_made_for_whom_they_are_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = command(capsys, monkeypatch, "certs", tmp_path, "--host", "10.0.0.5", "--devices", "h0..h1")
    assert code == 0
    made = ["authority.pem", "coordinator.pem", "devices/h0.pem", "devices/h1.pem"]
    assert said.splitlines() == [str(tmp_path / name) for name in made]
    assert command(capsys, monkeypatch, "certs", tmp_path, "--host", "a b")[0] == 2


def block(path: Path) -> Path:
    """Have a link that leads nowhere in the way: not even root can write there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.parent / "gone" / "away")
    return path


@pytest.mark.parametrize("word", ["revoke", "allow"])
@pytest.mark.parametrize("name", ["security", "security/lock"])
def test_a_run_folder_that_cannot_be_written_is_one_line(
    name: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    blocked = block(tmp_path / name)
    code, said = command(capsys, monkeypatch, "devices", word, tmp_path, "h0")
    assert (code, len(said.splitlines())) == (2, 1), said
    assert f"{blocked} cannot be {'made' if name == 'security' else 'written'}" in said


@pytest.mark.parametrize("name", ["fleet", "fleet/coordinator.pem", "fleet/devices", "fleet/devices/h0.pem"])
def test_a_certificate_that_cannot_be_written_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = block(tmp_path / name)
    code, said = command(capsys, monkeypatch, "certs", tmp_path / "fleet", "--host", "10.0.0.5", "--devices", "h0")
    assert code == 2
    fault = "written" if name.endswith(".pem") else "made"
    assert said.splitlines()[-1].startswith(f"parityfl: {blocked} cannot be {fault}"), said
    assert "Traceback" not in said


def test_a_credential_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocked = block(tmp_path / "credentials")
    with pytest.raises(FolderError, match=f"{blocked} cannot be made"):
        Credential.open(blocked / "h0.json")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_coordinator_without_credentials_listens_to_nobody_else(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = command(capsys, monkeypatch, "coordinator", "--host", host, "--port", "0")
    assert code == 2
    assert len(said.splitlines()) == 1
    assert all(word in said for word in (NAME, "--join-token-file", "--allow-anyone"))
    assert not list(tmp_path.iterdir())


def test_the_join_token_is_never_an_option(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line can be read by everyone on the machine."""
    for name in ("coordinator", "client"):
        code, said = command(capsys, monkeypatch, name, "--join-token", SECRET)
        assert code == 2
        assert "no such option: --join-token" in said


def test_a_configuration_holds_no_secret() -> None:
    from parityfl.config import Config

    names = json.dumps(Config().document()["security"])
    assert not any(word in names for word in ("token", "key", "password"))
