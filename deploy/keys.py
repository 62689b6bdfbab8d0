"""Keys of Flower's own processes: a SuperNode's identity, and the secret of an executor.

They authenticate transport only; no promise of feddp rests on them. A node's reply key, which signs
its update sums, is made by `feddp node`.
"""

import secrets
import sys
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from feddp.common.disk import PUBLIC, Disk
from feddp.common.errors import FeddpError
from feddp.deploy.commands import argument, group, run_tool

SECRET_BYTES = 48

KeyFile = Annotated[Path, argument("FILE")]
app = group(__doc__)


class KeyExistsError(FeddpError):
    """The key exists. It is not overwritten: users of the old one would be locked out."""


def make_supernode_key(path: Path) -> Path:
    """Makes an ECDSA P-384 key in OpenSSH's format, and the public half that Flower registers.

    Args:
      path: of the private key; the public one lies beside it, with ".pub".

    Returns:
      The path of the public key, for `flwr supernode register`.

    Raises:
      KeyExistsError: there is one already.
    """
    public_path = path.with_name(path.name + ".pub")
    _check_new(path)
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    Disk().replace(path, private)
    Disk().replace(public_path, public + b"\n", mode=PUBLIC)
    return public_path


def make_secret(path: Path) -> Path:
    """Makes the secret that an executor shows to its SuperLink or SuperNode: 48 random bytes.

    Raises:
      KeyExistsError: there is one already.
    """
    _check_new(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    Disk().replace(path, secrets.token_bytes(SECRET_BYTES))
    return path


def _check_new(path: Path) -> None:
    if path.exists():
        raise KeyExistsError(f"{path}: exists already; move it away to make another.")


@app.command()
def supernode(path: KeyFile) -> None:
    """Makes the identity of a SuperNode, for `flwr supernode register`."""
    print(f"{make_supernode_key(path)}: register it before the node starts.")


@app.command()
def secret(path: KeyFile) -> None:
    """Makes the secret shared by an executor and its SuperLink or SuperNode."""
    print(make_secret(path))


if __name__ == "__main__":
    sys.exit(run_tool(app, "python -m feddp.deploy.keys"))
