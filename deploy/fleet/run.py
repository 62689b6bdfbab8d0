"""feddp deploy: the run of a configuration on a fleet of processes on this machine."""

import dataclasses
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from feddp.common.config.run_config import RunConfig
from feddp.common.errors import ConfigError, FeddpError
from feddp.deploy.fleet.fleet import Fleet
from feddp.deploy.fleet.shares import (
    Share,
    check_ledgers,
    ledgers_path,
    make_ledgers,
    shares_of,
    with_ledgers,
)
from feddp.server.export import RESULT_NAME
from feddp.server.run import CONFIG_NAME, load_run

FOLLOW_SECONDS = 0.5


class StoppedError(FeddpError):
    """The run ended before its last round."""


def deploy_local(
    config: RunConfig, *, num_nodes: int, is_sealed: bool, folder: Path | None
) -> Path:
    """Brings up a fleet, runs the configuration on it, and takes everything down again.

    Args:
      num_nodes: SuperNodes, each with a resident node; the users are spread over them.
      is_sealed: nodes have keys, and replies are sealed.
      folder: keeps keys and logs; None: they are deleted, unless the run fails.

    Returns:
      The folder of the finished run.

    Raises:
      StoppedError: the run did not finish; the message names its logs.
    """
    config = named(config)
    shares = shares_of(config, num_nodes)
    if config.privacy.trust == "node":
        shares = with_ledgers(shares, ledgers_path(_run_path(config)))
        make_ledgers(config, shares)
    with fleet_of(config, shares=shares, is_sealed=is_sealed, folder=folder) as fleet:
        config = located(config, fleet)
        follow(fleet, config)
        return finished_run(config)


@contextmanager
def fleet_of(
    config: RunConfig,
    *,
    shares: Sequence[Share],
    is_sealed: bool = True,
    folder: Path | None = None,
    serve: Sequence[str] | None = None,
) -> Iterator[Fleet]:
    """Runs a fleet inside the `with` block; its processes never outlive it.

    Raises:
      ConfigError: the folder exists.
    """
    if folder is not None and folder.exists():
        raise ConfigError([f"--keep {folder}: exists already."])
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True)
    # Short: a unix socket's path has at most 107 bytes.
    place = folder.resolve() if folder else Path(tempfile.mkdtemp(prefix="feddp-"))
    fleet = Fleet(place, config, shares, is_sealed=is_sealed)
    if serve is not None:
        fleet.serve = serve
    started = time.monotonic()

    def show(what: str) -> None:
        """A line with the seconds since the start."""
        print(f"  {time.monotonic() - started:5.1f} s  {what}", flush=True)

    with _interrupted_by_sigterm():
        try:
            fleet.start(show)
            yield fleet
        except FeddpError:
            print(f"Logs: {fleet.logs_path}", flush=True)
            folder = folder or place
            raise
        finally:
            fleet.stop()
            if folder is None:
                shutil.rmtree(place)


def named(config: RunConfig) -> RunConfig:
    """The configuration with a run name, which the ledgers of its nodes need to recognise it."""
    name = config.run.name or time.strftime("%Y%m%d-%H%M%S-deployed")
    return dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))


def located(config: RunConfig, fleet: Fleet) -> RunConfig:
    """The configuration of a run on this fleet: a name, absolute paths, the fleet's registry."""
    config = named(config)
    run = dataclasses.replace(config.run, output_dir=str(Path(config.run.output_dir).resolve()))
    nodes = dataclasses.replace(config.nodes, minimum=fleet.num_nodes)
    if fleet.is_sealed:
        key_path = fleet.folder / "keys" / "server.key"
        nodes = dataclasses.replace(
            nodes, registry=str(fleet.registry_path), server_key=str(key_path)
        )
    return dataclasses.replace(config, run=run, nodes=nodes)


def follow(fleet: Fleet, config: RunConfig) -> None:
    """Submits a run and shows its log until it ends; dead processes are started again."""
    log_path = fleet.logs_path / "run.log"
    start = log_path.stat().st_size if log_path.exists() else 0
    process = fleet.submit(config)
    try:
        while process.poll() is None:
            for child in fleet.supervisor.tend():
                print(f"  {child.name} ended and was started again; see {child.log_path}")
            start = _show(log_path, start)
            time.sleep(FOLLOW_SECONDS)
        _show(log_path, start)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def finished_run(config: RunConfig) -> Path:
    """The run's folder, once all its rounds are released.

    Raises:
      StoppedError: they are not.
    """
    path = _run_path(config)
    if not (path / CONFIG_NAME).exists():
        raise StoppedError("The run did not start; its log is above.")
    if not (path / RESULT_NAME).exists():  # the last file of a run; its adapter is checked before
        raise StoppedError(
            f"Stopped before its last round. Continue with `feddp deploy resume {path}`; nothing "
            "that was charged is refunded."
        )
    return path


def deploy_resume(path: Path, *, num_nodes: int | None, folder: Path | None) -> None:
    """Continues a run folder on a new fleet, where its ledger says it stopped.

    Args:
      num_nodes: may differ from before, because sums do not depend on it; None: as before.
      folder: as in `deploy_local`.

    Raises:
      StoppedError: the run did not finish; the message names its logs.
    """
    config = load_run(path).config
    num_nodes = config.nodes.minimum if num_nodes is None else num_nodes
    is_sealed = bool(config.nodes.registry)
    shares = shares_of(config, num_nodes)
    if config.privacy.trust == "node":
        shares = with_ledgers(shares, ledgers_path(path))
        check_ledgers(shares)
    with fleet_of(config, shares=shares, is_sealed=is_sealed, folder=folder) as fleet:
        config = resuming(config, path, fleet)
        follow(fleet, config)
        finished_run(config)


def resuming(config: RunConfig, path: Path, fleet: Fleet) -> RunConfig:
    """The configuration of a Flower run that continues the run folder `path` on this fleet."""
    config = located(config, fleet)
    run = dataclasses.replace(config.run, resume=str(path.resolve()))
    return dataclasses.replace(config, run=run)


def _run_path(config: RunConfig) -> Path:
    return Path(config.run.resume or Path(config.run.output_dir) / (config.run.name or ""))


def _show(path: Path, start: int) -> int:
    """Prints what was added to a log since `start`, and returns its new end."""
    if not path.exists():
        return start
    with path.open("rb") as file:
        file.seek(start)
        text = file.read()
    print(text.decode(errors="replace"), end="", flush=True)
    return start + len(text)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM takes everything down as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        """Turns SIGTERM into an interrupt."""
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
