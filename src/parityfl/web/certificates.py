"""A private certificate authority for a fleet: its certificate, and those that it gives to coordinator and devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from parityfl.core.errors import ConfigError, FolderError
from parityfl.files import make_folder, writing
from parityfl.web.secrets import write_secret

AUTHORITY = "authority"
AUTHORITY_DAYS = 3650
_SKEW = timedelta(hours=1)
"""Certificates are valid from a little earlier on, for clocks that are behind."""


@dataclass(frozen=True)
class Authority:
    """An authority.

    Attributes:
        certificate: its certificate.
        key: its private key.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @staticmethod
    def open(folder: Path) -> Authority:
        """Return the authority of a folder; a new one, written there, where there is none.

        Raises:
            FolderError: the files are damaged, or the folder cannot be written.
        """
        certificate, key = folder / f"{AUTHORITY}.pem", folder / f"{AUTHORITY}.key"
        try:
            if not certificate.exists() and not key.exists():
                return Authority._new(folder)
            found = serialization.load_pem_private_key(key.read_bytes(), None)
            if not isinstance(found, ec.EllipticCurvePrivateKey):
                raise TypeError("it is of another kind")
            return Authority(x509.load_pem_x509_certificate(certificate.read_bytes()), found)
        except (OSError, ValueError, TypeError) as error:
            raise FolderError(
                f"{folder} holds no authority ({error}): restore {certificate.name} and {key.name}"
            ) from None

    @staticmethod
    def _new(folder: Path) -> Authority:
        make_folder(folder)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("parityfl fleet authority")
        builder = _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        _write(folder / AUTHORITY, certificate, key)
        return Authority(certificate, key)

    def certify(self, path: Path, name: str, names: Sequence[x509.GeneralName], days: int) -> None:
        """Write a certificate and its key, as PATH.pem and PATH.key, for one who both listens and calls.

        Args:
            path: where, without an ending.
            name: whose it is, for people.
            names: whose it is, for those who check it.
            days: how long it is valid.

        Raises:
            FolderError: a file cannot be written.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), self.certificate.subject, key.public_key(), days)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(both, critical=False)
        builder = builder.add_extension(authority, critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        _write(path, builder.sign(self.key, hashes.SHA256()), key)


def host_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Return hosts and addresses as certificates name them.

    Raises:
        ConfigError: one is neither.
    """
    return [_host(text) for text in hosts]


def device_name(device_id: str) -> x509.GeneralName:
    """Return how a certificate names a device: not as a host, so that none can pass for the coordinator."""
    return x509.UniformResourceIdentifier(f"urn:parityfl:device:{device_id}")


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    try:
        if not text or any(not (letter.isalnum() or letter in "-.*_") for letter in text):
            raise ValueError(text)
        return x509.DNSName(text)
    except ValueError:
        raise ConfigError(f"--host {text!r}: name a host or an address, such as 10.0.0.5 or coordinator") from None


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _SKEW).not_valid_after(now + timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _write(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Write the key first: a certificate without its key is of no use to anybody."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_secret(path.with_name(f"{path.name}.key"), private.decode("ascii"))
    public = path.with_name(f"{path.name}.pem")
    with writing(public):
        public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
