"""The commands about whom a fleet trusts: its devices' credentials, its certificates."""

import os
from pathlib import Path
from typing import Annotated

import typer

from parityfl.core.errors import FolderError

trust = typer.Typer()
devices = typer.Typer(help="The devices that have joined a run: list, revoke, allow. A running coordinator notices.")
trust.add_typer(devices, name="devices")

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run folder.")]
DeviceName = Annotated[str, typer.Argument(metavar="DEVICE", help="The device's name.")]


@devices.command("list")
def list_devices(run: RunDir) -> None:
    """List the devices that have joined. Name, status, since when, hash of the credential."""
    from parityfl.coordinator.enrolment import Enrolment

    enrolment = Enrolment(run)
    found = enrolment.devices()
    if not enrolment.exists:
        raise FolderError(f"{run} has no credentials: no coordinator has served it with a join token")
    for name, enrolled in sorted(found.items()):
        typer.echo(f"{name}  {enrolled.status}  {enrolled.since}  {enrolled.fingerprint or '-'}")


@devices.command()
def revoke(run: RunDir, device: DeviceName) -> None:
    """Let a device take part no longer. It still knows the join token: change that, too."""
    from parityfl.coordinator.enrolment import Enrolment

    _check(run, device)
    Enrolment(run).revoke(device)
    typer.echo(f"{device} is revoked")


@devices.command()
def allow(run: RunDir, device: DeviceName) -> None:
    """Let a device join anew, with a new credential. For one that was revoked, or has lost its own."""
    from parityfl.coordinator.enrolment import Enrolment

    _check(run, device)
    Enrolment(run).allow(device)
    typer.echo(f"{device} may join anew")


@trust.command()
def certs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the authority and the certificates are.")],
    host: Annotated[
        list[str] | None, typer.Option(help="A host or address of the coordinator; may be repeated.")
    ] = None,
    names: Annotated[str, typer.Option("--devices", help="Devices: h0,h1 or h0..h9.")] = "",
    days: Annotated[int, typer.Option(min=1, max=36_500, help="How long the certificates are valid.")] = 825,
) -> None:
    """Make a private authority, and certificates for a fleet."""
    from parityfl.client.settings import parse_devices
    from parityfl.files import make_folder
    from parityfl.web.certificates import AUTHORITY, Authority, device_name, host_names

    hosts, wanted = host_names(host or []), parse_devices(names) if names else ()
    authority = Authority.open(folder)
    typer.echo(folder / f"{AUTHORITY}.pem")
    if hosts:
        authority.certify(folder / "coordinator", "parityfl coordinator", hosts, days)
        typer.echo(folder / "coordinator.pem")
    for name in wanted:
        make_folder(folder / "devices")
        authority.certify(folder / "devices" / name, f"parityfl device {name}", [device_name(name)], days)
        typer.echo(folder / "devices" / f"{name}.pem")


def _check(run: Path, device: str) -> None:
    from parityfl.client.settings import check_name

    check_name(device)
    if not os.path.isfile(run / "config.json"):  # also where the folder cannot be looked into
        raise FolderError(f"{run} is no run folder: there is no config.json to be read in it")
