"""feddp node: runs a resident node; manages the keys and registry of a fleet's nodes."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feddp.common.errors import ConfigError
from feddp.deploy.commands import argument, group, option
from feddp.simulations.commands.config_options import Config, Settings, config_of

if TYPE_CHECKING:
    from feddp.common.config.run_config import RunConfig

_TOO_MANY = (
    "nodes.users-per-node = {}: this node holds more users. Give it fewer, or register a larger "
    "bound: the same in every node's configuration and in the server's."
)
NAMES = ("serve", "keygen", "enroll", "rotate", "revoke", "list")

RegistryFile = Annotated[Path, argument("REGISTRY", "file of the nodes")]
NodeName = Annotated[str, argument("NAME", "of the node in the registry")]
PublicKey = Annotated[Path, option("public key of the node", "FILE")]
commands = group("Serves a node's users to a fleet; makes keys, and keeps the registry.")


def add_to(app: typer.Typer) -> None:
    """Adds `feddp node ...`."""
    app.add_typer(commands, name="node", rich_help_panel="Deploy")


@dataclass(frozen=True)
class Given:
    """A resident node's options, besides its configuration.

    Attributes:
      part: its part of the users: the index, and the number of parts.
      name, key, server_key: its identity, and whose requests it answers; all or none.
      state: file of the newest question; None: beside the key.
      ledger: its own, if it adds the noise itself.
    """

    part: tuple[int, int]
    name: str | None
    key: Path | None
    server_key: Path | None
    state: Path | None
    ledger: Path | None

    @property
    def state_path(self) -> Path:
        """Where a node with a key keeps the newest question."""
        return self.state or Path(self.key or "").with_suffix(".state")


def with_action(arguments: list[str]) -> list[str]:
    """`feddp node CONFIG ...` means `feddp node serve CONFIG ...`.

    >>> with_action(["node", "run.toml", "--address", "unix:/run/n"])
    ['node', 'serve', 'run.toml', '--address', 'unix:/run/n']
    """
    is_named = len(arguments) > 1 and arguments[1] in (*NAMES, "-h", "--help")
    if arguments[:1] != ["node"] or is_named:
        return arguments
    return ["node", "serve", *arguments[1:]]


@commands.command()
def serve(
    address: Annotated[str, option("unix:/path/to/socket or 127.0.0.1:port", "ADDRESS")],
    config: Config = None,
    data: Annotated[str | None, option("this node's users: overrides data.path", "PATH")] = None,
    settings: Settings = None,
    part: Annotated[str, typer.Option(metavar="I/N", help="a part of the users: demo")] = "0/1",
    name: Annotated[
        str | None, option("in the registry; with --key and --server-key: seal replies")
    ] = None,
    key: Annotated[Path | None, option("this node's private key", "FILE")] = None,
    server_key: Annotated[Path | None, option("public key of the server", "FILE")] = None,
    state: Annotated[Path | None, option("what was asked; beside the key", "FILE")] = None,
    ledger: Annotated[
        Path | None, option('this node\'s own: privacy.trust = "node"', "FILE")
    ] = None,
    token: Annotated[Path | None, option("made anew; beside the socket", "FILE")] = None,
) -> None:
    """Loads model and users once, and answers client apps."""
    from concurrent.futures import ThreadPoolExecutor

    from feddp.client.service.resident import UNIX, token_path
    from feddp.client.service.service import (
        NodeService,
        check_address,
        make_token,
        serve_until_stopped,
    )

    check_address(address)
    if token is None and not address.startswith(UNIX):
        raise ConfigError(["--token: say where the token goes; only a socket has a place for it."])
    run_config = config_of(config, settings, data_path=data)
    given = Given(_part(part), name, key, server_key, state, ledger)
    # The node lives in one thread: SQLite ties a ledger to the thread that opened it, and torch's
    # thread settings apply to the calling thread.
    with ThreadPoolExecutor(1) as own, ExitStack() as stack:
        opened = ExitStack()
        stack.callback(lambda: own.submit(opened.close).result())
        answer = own.submit(_answerer, run_config, given, opened).result()
        service = NodeService(
            lambda kind, content: own.submit(answer, kind, content).result(),
            address=address,
            token=make_token(token or token_path(address)),
        )
        serve_until_stopped(service, lambda: print(f"{address}: ready", flush=True))


@commands.command()
def keygen(file: Annotated[Path, argument("FILE", "of the private key")]) -> None:
    """Makes a key: FILE, and its public half FILE.pub."""
    from feddp.common.wire.identity_keys import make_key

    public_path = make_key(file)
    print(f"{file}: keep it on this machine\n{public_path}: for the operator")


@commands.command()
def enroll(
    registry: RegistryFile,
    name: NodeName,
    public_key: PublicKey,
    users: Annotated[int, option("registered, public", "N")],
) -> None:
    """Adds a node to the registry."""
    from feddp.common.wire.identity_keys import read_public_key
    from feddp.common.wire.node_registry import Registry, read_registry, write_registry

    present = read_registry(registry) if registry.exists() else Registry({})
    write_registry(registry, present.enroll(name, read_public_key(public_key), users))
    print(f"{name}: enrolled with {users} users")


@commands.command()
def rotate(registry: RegistryFile, name: NodeName, public_key: PublicKey) -> None:
    """Gives a node another key."""
    from feddp.common.wire.identity_keys import read_public_key
    from feddp.common.wire.node_registry import read_registry, write_registry

    key = read_public_key(public_key)
    write_registry(registry, read_registry(registry).rotate(name, key))
    print(f"{name}: new key, from the next round on; start the node with it")


@commands.command()
def revoke(registry: RegistryFile, name: NodeName) -> None:
    """Refuses a node from the next round on."""
    from feddp.common.wire.node_registry import read_registry, write_registry

    write_registry(registry, read_registry(registry).revoke(name))
    print(f"{name}: revoked, from the next round on")


@commands.command("list")
def list_nodes(registry: RegistryFile) -> None:
    """Shows the registry."""
    from feddp.common.wire.node_registry import read_registry

    for name, entry in read_registry(registry).entries.items():
        print(f"{name:<24} {entry.users:>8} users  {entry.state:<8} {entry.public_key[:16]}")


def _answerer(config: "RunConfig", given: Given, stack: ExitStack) -> Callable[[str, Any], Any]:
    identity = _identity(given)
    _check_own_ledger(config, given.ledger)

    from feddp.client.assembly import holds_too_many, open_part
    from feddp.client.service.answer import answer
    from feddp.client.service.known_ledgers import KnownLedgers
    from feddp.common.assembly import Part

    part = Part(*given.part)
    if holds_too_many(config, part):
        raise ConfigError([_TOO_MANY.format(config.nodes.users_per_node)])
    opened = open_part(
        config,
        part,
        ledger=given.ledger,
        ledger_key=Path(config.privacy.ledger_key) if config.privacy.ledger_key else None,
        name=given.name or str(part),
    )
    node = stack.enter_context(opened)
    known_ledgers = KnownLedgers(given.state_path.parent) if identity else None
    return lambda kind, content: answer(node, kind, content, identity, known_ledgers)


def _check_own_ledger(config: "RunConfig", path: Path | None) -> None:
    is_needed = config.privacy.trust == "node"
    if is_needed and path is None:
        raise ConfigError(
            ['privacy.trust = "node": this node adds the noise itself. Name its ledger: --ledger.']
        )
    if path is not None and not is_needed:
        raise ConfigError(
            [
                f'--ledger {path}: privacy.trust = "{config.privacy.trust}", so this node adds no '
                'noise of its own. Set privacy.trust = "node".'
            ]
        )
    if path is not None and not path.is_file():
        raise ConfigError(
            [
                f"--ledger {path}: missing. The owner of the users makes it, once: `feddp ledger "
                f"create {path} --config CONFIG --population NAME`."
            ]
        )


def _identity(given: Given) -> Any:
    """The node's identity; None without a key: replies are not sealed, as in a simulation."""
    words = {"--name": given.name, "--key": given.key, "--server-key": given.server_key}
    missing = [word for word, value in words.items() if value is None]
    if len(missing) == len(words):
        print("feddp: no --key: replies are not sealed; only for simulations.", file=sys.stderr)
        return None
    if given.name is None or given.key is None or given.server_key is None:
        raise ConfigError(
            [f"{word}: missing; a node that seals needs all three." for word in missing]
        )

    from feddp.client.service.answer import Identity, Memory
    from feddp.common.wire.identity_keys import read_private_key, read_public_key

    return Identity(
        name=given.name,
        key=read_private_key(given.key),
        server_key=read_public_key(given.server_key),
        memory=Memory(given.state_path),
    )


def _part(text: str) -> tuple[int, int]:
    index, _, num_parts = text.partition("/")
    if not (index.isdecimal() and num_parts.isdecimal() and int(index) < int(num_parts)):
        raise ConfigError([f"--part {text}: must be I/N with 0 <= I < N, as in 0/2."])
    return int(index), int(num_parts)
