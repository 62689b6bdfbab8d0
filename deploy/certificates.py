"""Certificates of a fleet: one authority, server and client certificates, revocation, renewal.

A folder holds it all: `ca.crt` and `ca.crl` (public), `ca.key` (keep it off the servers),
`NAME.crt` and `NAME.key` for each server and node, and `issued/`, every certificate ever signed.
A certificate with hosts authenticates a server, one without a client; neither passes for the other.
"""

import datetime
import ipaddress
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from feddp.common.disk import PUBLIC, Disk
from feddp.common.errors import FeddpError
from feddp.deploy.commands import argument, group, run_tool

CA_DAYS, CERTIFICATE_DAYS, CRL_DAYS = 3650, 365, 365
WARNING_DAYS = 14
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SKEW = datetime.timedelta(minutes=5)  # clocks of a fleet may differ this much

Folder = Annotated[Path, argument("FOLDER", "of the authority")]
Name = Annotated[str, argument("NAME", "of a server or a node")]
Days = Annotated[int, typer.Option(help="how long the certificate is valid")]
app = group(__doc__)


class CertificateError(FeddpError):
    """The authority cannot do what was asked."""


@dataclass(frozen=True)
class Issued:
    """The paths of a certificate and its key."""

    certificate_path: Path
    key_path: Path


def make_ca(folder: Path, *, days: int = CA_DAYS) -> Path:
    """Makes an authority with an empty revocation list, and returns the path of its certificate.

    Raises:
      CertificateError: there is one already.
    """
    if (folder / "ca.key").exists():
        raise CertificateError(f"{folder}: has an authority already; it is never overwritten.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "issued").mkdir(mode=0o700, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject("feddp-ca")
    certificate = (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    Disk().replace(folder / "ca.key", _pem(key))
    _publish(folder / "ca.crt", certificate)
    _write_crl(folder, revoked=[])
    return folder / "ca.crt"


def issue(
    folder: Path, name: str, hosts: Sequence[str] = (), *, days: int = CERTIFICATE_DAYS
) -> Issued:
    """Makes a fresh key and signs a certificate for it, in the place of the last one of that name.

    Args:
      folder: of the authority.
      name: lower-case letters, digits, hyphens; the common name that proxies log and limit by.
      hosts: DNS names and IP addresses that a server answers to; none: a client certificate.
      days: validity.

    Raises:
      CertificateError: no authority there, or an impossible name or host.
    """
    ca, ca_key = _load_ca(folder)
    if not NAME.fullmatch(name) or name == "ca":
        raise CertificateError(f'name "{name}": must be lower-case letters, digits and hyphens.')
    usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_subject(name), ca.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(_of_authority(ca_key), critical=False)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(ca_key, hashes.SHA256())
    issued = Issued(folder / f"{name}.crt", folder / f"{name}.key")
    _publish(folder / "issued" / f"{certificate.serial_number:x}.crt", certificate)
    Disk().replace(issued.key_path, _pem(key))
    _publish(issued.certificate_path, certificate)
    return issued


def renew(folder: Path, name: str, *, days: int = CERTIFICATE_DAYS) -> Issued:
    """Issues the certificate again with the same hosts and a fresh key; the old one stays valid.

    Raises:
      CertificateError: nothing was issued in that name.
    """
    path = folder / f"{name}.crt"
    if not path.exists():
        raise CertificateError(f'"{name}": no certificate in {folder}; issue one first.')
    return issue(folder, name, _hosts(_read(path)), days=days)


def revoke(folder: Path, name: str) -> int:
    """Puts every certificate of a name on the revocation list; proxies must be given `ca.crl`.

    Returns:
      How many certificates were added.

    Raises:
      CertificateError: nothing was issued in that name.
    """
    listed = {entry.serial_number for entry in _read_crl(folder)}
    issued = (_read(path) for path in sorted((folder / "issued").glob("*.crt")))
    of_name = [each for each in issued if _common_name(each) == name]
    if not of_name:
        raise CertificateError(f'"{name}": no certificate in {folder}; nothing was revoked.')
    new = [each.serial_number for each in of_name if each.serial_number not in listed]
    added = [_revoked(serial) for serial in new]
    _write_crl(folder, revoked=[*_read_crl(folder), *added])
    return len(new)


def renew_crl(folder: Path) -> None:
    """Signs the revocation list again; once it has expired, a proxy refuses every client."""
    _write_crl(folder, revoked=_read_crl(folder))


def days_left(folder: Path) -> dict[str, int]:
    """Whole days until each certificate in use, and the revocation list, expires."""
    _load_ca(folder)
    ends = {path.name: _read(path).not_valid_after_utc for path in sorted(folder.glob("*.crt"))}
    crl_end = _load_crl(folder).next_update_utc
    if crl_end is not None:
        ends["ca.crl"] = crl_end
    return {name: (end - _now()).days for name, end in ends.items()}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    if days < 1:
        raise CertificateError(f"days = {days}: must be >= 1.")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - SKEW)
        .not_valid_after(_now() + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not all(NAME.fullmatch(part) for part in text.split(".")):
        raise CertificateError(f'host "{text}": neither an IP address nor a DNS name.')
    return x509.DNSName(text)


def _hosts(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def _revoked(serial: int) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(serial)
    return builder.revocation_date(_now()).build()


def _write_crl(folder: Path, *, revoked: Sequence[x509.RevokedCertificate]) -> None:
    ca, key = _load_ca(folder)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(_now() - SKEW)
        .next_update(_now() + datetime.timedelta(days=CRL_DAYS))
        .add_extension(x509.CRLNumber(int(_now().timestamp())), critical=False)
        .add_extension(_of_authority(key), critical=False)
    )
    for entry in revoked:
        builder = builder.add_revoked_certificate(entry)
    _publish(folder / "ca.crl", builder.sign(key, hashes.SHA256()))


def _publish(path: Path, signed: x509.Certificate | x509.CertificateRevocationList) -> None:
    Disk().replace(path, signed.public_bytes(serialization.Encoding.PEM), mode=PUBLIC)


def _load_crl(folder: Path) -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl((folder / "ca.crl").read_bytes())


def _read_crl(folder: Path) -> list[x509.RevokedCertificate]:
    _load_ca(folder)
    return list(_load_crl(folder))


def _load_ca(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if not (folder / "ca.key").exists():
        raise CertificateError(f"{folder}: has no authority. Make one with the command `ca`.")
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{folder / 'ca.key'}: not an elliptic-curve key.")
    return _read(folder / "ca.crt"), key


def _read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _of_authority(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@app.command("ca")
def _make_ca(folder: Folder) -> None:
    """Makes an authority."""
    print(f"{make_ca(folder)}: every machine trusts it. Keep ca.key off the servers.")


@app.command("issue")
def _issue(
    folder: Folder,
    name: Name,
    hosts: Annotated[
        list[str] | None,
        argument("HOST...", "DNS names and addresses of a server; without: a client certificate"),
    ] = None,
    days: Days = CERTIFICATE_DAYS,
) -> None:
    """Issues a certificate, with a fresh key: a server's for its hosts, or else a client's."""
    issued = issue(folder, name, hosts or (), days=days)
    print(f"{issued.certificate_path}, {issued.key_path}")


@app.command("renew")
def _renew(folder: Folder, name: Name, days: Days = CERTIFICATE_DAYS) -> None:
    """Renews a certificate, with a fresh key."""
    issued = renew(folder, name, days=days)
    print(f"{issued.certificate_path}, {issued.key_path}: install both, then restart the proxy.")


@app.command("revoke")
def _revoke(folder: Folder, name: Name) -> None:
    """Refuses every certificate of a name."""
    num_revoked = revoke(folder, name)
    print(f"{num_revoked} revoked: install {folder / 'ca.crl'}, then restart the edge.")


@app.command("renew-crl")
def _renew_crl(folder: Folder) -> None:
    """Signs the revocation list again."""
    renew_crl(folder)
    print(f"{folder / 'ca.crl'}: install it, then restart the proxy.")


@app.command(
    "list", help=f"Prints the days left; exit code 1 if any has fewer than {WARNING_DAYS}."
)
def _list(folder: Folder) -> None:
    left = days_left(folder)
    for name, days in left.items():
        print(f"{days:5d} days  {name}{'  renew now' if days < WARNING_DAYS else ''}")
    raise typer.Exit(int(min(left.values()) < WARNING_DAYS))


if __name__ == "__main__":
    sys.exit(run_tool(app, "python -m feddp.deploy.certificates"))
