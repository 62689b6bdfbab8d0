"""Prometheus metrics and health of a run: public values, on loopback, in a separate thread."""

import errno
import fcntl
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, Histogram

from feddp.common.disk import Disk
from feddp.common.errors import ConfigError

LOOPBACK = "127.0.0.1"
OTHER = "other"
REASONS = (
    *("late", "not-sent", "error", "duplicate"),
    *("size", "malformed", "seal", "signature", "norm", OTHER),
)
COMMIT_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
CLIENT_SECONDS = 10.0
Checks = Mapping[str, Callable[[], bool]]

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # not on the allow-list


@dataclass
class Metrics:
    """Everything about a run that may be measured: one method each.

    **Guarantee:** only the names below are ever exposed, and the only labels are the public name of
    the run and, for the operator, a reason from `REASONS`. Metrics of replies or nodes describe
    individuals, and do not exist unless `is_operator`.

    **Reference:** the allow-list in docs/deployment.md, "What is measured".

    Attributes:
      path: the run folder; its file system is measured.
      is_operator: also count replies and nodes, for an admin network with short retention.
    """

    run: str
    epsilon_target: float
    path: Path
    is_operator: bool = False
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self._epsilon = self._gauge("feddp_epsilon_spent", "upper bound so far, a meter")
        self._rounds = self._gauge("feddp_rounds_released", "rounds with a durable release")
        self._burned = self._gauge("feddp_charges_burned", "charges that crashes left unanswered")
        self._seq = self._gauge("feddp_ledger_seq", "rows of the ledger; never falls")
        self._gauge("feddp_epsilon_target", "upper bound of the plan").set(self.epsilon_target)
        self._gauge("feddp_disk_free_bytes", "of the run folder").set_function(
            lambda: float(free_bytes(self.path))
        )
        self._commit = Histogram(
            "feddp_commit_seconds",
            "to make one ledger row durable",
            ["run"],
            registry=self.registry,
            buckets=COMMIT_BUCKETS,
        ).labels(self.run)
        if self.is_operator:
            self._nodes = self._gauge("feddp_nodes_online", "operators only")
            self._refused = prometheus_client.Counter(
                "feddp_replies_invalid",
                "operators only: replies that counted as zero",
                ["run", "reason"],
                registry=self.registry,
            )
            self._last_refused: Counter[str] = Counter()
            self.replies_refused({})

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(name, about, ["run"], registry=self.registry).labels(self.run)

    def round_released(
        self, round: int, *, epsilon: float, num_charges: int, ledger_rows: int
    ) -> None:
        """Records the run's progress, when it opens and after each durable release.

        Args:
          round: the last released one; 0 is the base.
          epsilon: spent so far, at the plan's delta.
          num_charges: so far, all of them answered or burned.
        """
        self._epsilon.set(epsilon)
        self._rounds.set(round)
        self._burned.set(num_charges - round)
        self._seq.set(ledger_rows)

    def committed(self, seconds: float) -> None:
        """Records how long one ledger row took to become durable."""
        self._commit.observe(seconds)

    def replies_refused(self, totals: Mapping[str, int]) -> None:
        """Records how many replies contributed zero so far, if `is_operator`.

        Args:
          totals: since this start, by reason; a reason not in `REASONS` counts as "other", so that
            text from a node never becomes a label.
        """
        if not self.is_operator:
            return
        known = Counter({reason: totals.get(reason, 0) for reason in REASONS})
        known[OTHER] += sum(totals.values()) - known.total()
        for reason, total in known.items():
            self._refused.labels(self.run, reason).inc(total - self._last_refused[reason])
        self._last_refused = known

    def nodes_online(self, num_nodes: int) -> None:
        """Records how many nodes are online, if `is_operator`."""
        if self.is_operator:
            self._nodes.set(num_nodes)


class MeasuredDisk(Disk):
    """A disk that records how long each ledger row took: its points surround every commit."""

    def __init__(self, metrics: Metrics):
        self._metrics = metrics
        self._started = 0.0

    def point(self, name: str) -> None:
        """Starts a timer before a row and reads it after; rows have upper-case kinds."""
        moment, _, kind = name.partition(" ")
        if moment == "before":
            self._started = time.monotonic()
        elif moment == "after" and kind.isupper():
            self._metrics.committed(time.monotonic() - self._started)


class MetricsServer:
    """Serves `/metrics`, `/healthz` and `/readyz` over HTTP while its context lasts.

    `/healthz` is 200 while the process answers. `/readyz` is 200 while every check is true,
    otherwise 503; its body names each check. Everything else is 404.
    """

    def __init__(self, metrics: Metrics, checks: Checks, *, port: int, host: str = LOOPBACK):
        """Starts to listen.

        Args:
          checks: what readiness means, by name; see `run_checks`.
          port: 0 takes a free one.
          host: an address of this machine; anything but loopback belongs behind a firewall.

        Raises:
          ConfigError: the port is taken, or the host is not this machine's.
        """
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(metrics, checks))
        except OSError as error:
            name = "host" if error.errno == errno.EADDRNOTAVAIL else "port"
            raise ConfigError(
                f"metrics.{name}: cannot listen on {host}:{port} ({error.strerror}); 0 turns off."
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.server_port

    def __enter__(self) -> "MetricsServer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def run_checks(path: Path, ledger_path: Path, *, checkpoint_bytes: int) -> Checks:
    """The readiness checks of a run that holds its ledger; opening it has verified every row.

    `checkpoint_bytes`: of one checkpoint; a round needs room for two.
    """
    return {
        "ledger": lambda: ledger_path.is_file(),
        "lock": lambda: is_locked(ledger_path),
        "disk": lambda: free_bytes(path) > 2 * checkpoint_bytes,
    }


def is_locked(ledger_path: Path) -> bool:
    """Whether a writer holds the ledger; never blocks a writer."""
    path = ledger_path.resolve()
    try:
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def free_bytes(path: Path) -> int:
    """Free bytes on the file system of a folder; 0 if unknown."""
    try:
        return Disk().free_bytes(path)
    except OSError:
        return 0


def _handler(metrics: Metrics, checks: Checks) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers /metrics, /healthz and /readyz."""

        timeout = CLIENT_SECONDS  # a silent client must not hold a thread
        server_version, sys_version = "feddp", ""

        def do_GET(self) -> None:
            """See `http.server.BaseHTTPRequestHandler`."""
            if self.path == "/metrics":
                text = prometheus_client.generate_latest(metrics.registry)
                self._answer(200, prometheus_client.CONTENT_TYPE_LATEST, text)
            elif self.path == "/healthz":
                self._answer(200, "text/plain", b"ok\n")
            elif self.path == "/readyz":
                passed = {name: check() for name, check in checks.items()}
                code = 200 if all(passed.values()) else 503
                self._answer(code, "application/json", json.dumps(passed).encode())
            else:
                self._answer(404, "text/plain", b"not found\n")

        def _answer(self, code: int, content_type: str, content: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Does nothing: requests are not logged."""

    return Handler
