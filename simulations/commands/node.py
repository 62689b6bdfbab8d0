"""feddp node: the resident node, and the keys and registry of a fleet's nodes."""

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from feddp.common.config.run_config import RunConfig, load_config, parse_override
from feddp.common.errors import ConfigError

Subparsers = Any  # argparse names the type of add_subparsers() privately
_TOO_MANY = (
    "nodes.users-per-node = {}: this node holds more users. Give it fewer, or register a larger "
    "bound: the same in every node's configuration and in the server's."
)
NAMES = ("serve", "keygen", "enroll", "rotate", "revoke", "list")


def add_node_commands(commands: Subparsers) -> None:
    """Adds `feddp node ...` to the command line."""
    node = commands.add_parser("node", help="serve a node's users to a fleet; keys and registry")
    actions = node.add_subparsers(required=True, metavar="ACTION")

    serve = actions.add_parser("serve", help="load model and users once, and answer client apps")
    serve.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="a TOML file")
    serve.add_argument("--address", required=True, help="unix:/path/to/socket or 127.0.0.1:port")
    serve.add_argument("--data", metavar="PATH", help="this node's users: overrides data.path")
    serve.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a setting"
    )
    serve.add_argument("--part", default="0/1", metavar="I/N", help="a part of the users: demo")
    serve.add_argument("--name", help="in the registry; with --key and --server-key: seal replies")
    serve.add_argument("--key", type=Path, metavar="FILE", help="this node's private key")
    serve.add_argument("--server-key", type=Path, metavar="FILE", help="public key of the server")
    serve.add_argument("--state", type=Path, metavar="FILE", help="what was asked; beside the key")
    serve.add_argument(
        "--ledger", type=Path, metavar="FILE", help='this node\'s own: privacy.trust = "node"'
    )
    serve.add_argument("--token", type=Path, metavar="FILE", help="made anew; beside the socket")
    serve.set_defaults(command=_serve)

    keygen = actions.add_parser("keygen", help="make a key: FILE, and its public half FILE.pub")
    keygen.add_argument("file", type=Path, metavar="FILE")
    keygen.set_defaults(command=_keygen)

    for name, command, about in (
        ("enroll", _enroll, "add a node to the registry"),
        ("rotate", _rotate, "give a node another key"),
        ("revoke", _revoke, "refuse a node from the next round on"),
        ("list", _list, "show the registry"),
    ):
        action = actions.add_parser(name, help=about)
        action.add_argument("registry", type=Path, metavar="REGISTRY")
        if name != "list":
            action.add_argument("name", metavar="NAME")
        if name in ("enroll", "rotate"):
            action.add_argument("--public-key", type=Path, required=True, metavar="FILE")
        if name == "enroll":
            action.add_argument("--users", type=int, required=True, help="registered, public")
        action.set_defaults(command=command)


def with_action(arguments: list[str]) -> list[str]:
    """`feddp node CONFIG ...` means `feddp node serve CONFIG ...`.

    >>> with_action(["node", "run.toml", "--address", "unix:/run/n"])
    ['node', 'serve', 'run.toml', '--address', 'unix:/run/n']
    """
    is_named = len(arguments) > 1 and arguments[1] in (*NAMES, "-h", "--help")
    if arguments[:1] != ["node"] or is_named:
        return arguments
    return ["node", "serve", *arguments[1:]]


def _serve(options: argparse.Namespace) -> int:
    from feddp.client.service.resident import UNIX, token_path
    from feddp.client.service.service import (
        NodeService,
        check_address,
        make_token,
        serve_until_stopped,
    )

    check_address(options.address)
    if options.token is None and not options.address.startswith(UNIX):
        raise ConfigError(["--token: say where the token goes; only a socket has a place for it."])
    # The node lives in one thread: SQLite gives a ledger to the thread that opened it alone, and
    # torch pins threads for the one that asks.
    with ThreadPoolExecutor(1) as own, ExitStack() as stack:
        opened = ExitStack()
        stack.callback(lambda: own.submit(opened.close).result())
        answer = own.submit(_answerer, options, opened).result()
        token = make_token(options.token or token_path(options.address))
        service = NodeService(
            lambda kind, content: own.submit(answer, kind, content).result(),
            address=options.address,
            token=token,
        )
        serve_until_stopped(service, lambda: print(f"{options.address}: ready", flush=True))
    return 0


def _answerer(options: argparse.Namespace, stack: ExitStack) -> Callable[[str, Any], Any]:
    overrides = dict(parse_override(text) for text in options.set)
    if options.data is not None:
        overrides["data.path"] = options.data
    config = load_config(options.config, overrides)
    index, num_parts = _part(options.part)
    identity = _identity(options)
    _check_own_ledger(config, options.ledger)

    from feddp.client.assembly import build_part, holds_too_many
    from feddp.client.own_noise import own_noise_of
    from feddp.client.service.answer import answer
    from feddp.client.service.known_ledgers import KnownLedgers
    from feddp.common.assembly import Part, load_model, pin_threads

    part = Part(index, num_parts)
    if holds_too_many(config, part):
        raise ConfigError([_TOO_MANY.format(config.nodes.users_per_node)])
    pin_threads(config)
    base, layout = load_model(config)
    own_noise = stack.enter_context(
        own_noise_of(
            config,
            base,
            layout,
            ledger_path=options.ledger,
            key_path=Path(config.privacy.ledger_key) if config.privacy.ledger_key else None,
            name=options.name or str(part),
        )
    )
    node = build_part(config, part, loaded=(base, layout), own_noise=own_noise)
    known_ledgers = KnownLedgers(_state_path(options).parent) if identity else None
    return lambda kind, content: answer(node, kind, content, identity, known_ledgers)


def _check_own_ledger(config: RunConfig, path: Path | None) -> None:
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


def _identity(options: argparse.Namespace) -> Any:
    """Who this node is; None where it has no key and replies travel open, as in a simulation."""
    given = {"--name": options.name, "--key": options.key, "--server-key": options.server_key}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        print("feddp: no --key: replies are not sealed; only for simulations.", file=sys.stderr)
        return None
    if missing:
        raise ConfigError(
            [f"{name}: missing; a node that seals needs all three." for name in missing]
        )

    from feddp.client.service.answer import Identity, Memory
    from feddp.common.wire.identity_keys import read_private_key, read_public_key

    return Identity(
        name=options.name,
        key=read_private_key(options.key),
        server_key=read_public_key(options.server_key),
        memory=Memory(_state_path(options)),
    )


def _state_path(options: argparse.Namespace) -> Path:
    path: Path = options.state or options.key.with_suffix(".state")
    return path


def _part(text: str) -> tuple[int, int]:
    index, _, num_parts = text.partition("/")
    if not (index.isdecimal() and num_parts.isdecimal() and int(index) < int(num_parts)):
        raise ConfigError([f"--part {text}: must be I/N with 0 <= I < N, as in 0/2."])
    return int(index), int(num_parts)


def _keygen(options: argparse.Namespace) -> int:
    from feddp.common.wire.identity_keys import make_key

    public_path = make_key(options.file)
    print(f"{options.file}: keep it on this machine\n{public_path}: for the operator")
    return 0


def _enroll(options: argparse.Namespace) -> int:
    from feddp.common.wire.identity_keys import read_public_key
    from feddp.common.wire.node_registry import Registry, read_registry, write_registry

    present = read_registry(options.registry) if options.registry.exists() else Registry({})
    key = read_public_key(options.public_key)
    write_registry(options.registry, present.enroll(options.name, key, options.users))
    print(f"{options.name}: enrolled with {options.users} users")
    return 0


def _rotate(options: argparse.Namespace) -> int:
    from feddp.common.wire.identity_keys import read_public_key
    from feddp.common.wire.node_registry import read_registry, write_registry

    key = read_public_key(options.public_key)
    write_registry(options.registry, read_registry(options.registry).rotate(options.name, key))
    print(f"{options.name}: new key, from the next round on; start the node with it")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    from feddp.common.wire.node_registry import read_registry, write_registry

    write_registry(options.registry, read_registry(options.registry).revoke(options.name))
    print(f"{options.name}: revoked, from the next round on")
    return 0


def _list(options: argparse.Namespace) -> int:
    from feddp.common.wire.node_registry import read_registry

    for name, entry in read_registry(options.registry).entries.items():
        print(f"{name:<24} {entry.users:>8} users  {entry.state:<8} {entry.public_key[:16]}")
    return 0
