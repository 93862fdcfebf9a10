"""``tenure up``: everything on this machine until Ctrl-C, and whatever dies is started again.

Prints what it does for people; the machine-readable answer is ``DIR/tenure.env``. The first signal (Ctrl-C, SIGTERM, a
closed terminal) stops in order: workers drain, then coordinators, etcd, Postgres. The second one kills. SIGKILL leaves
nothing behind either: the kernel ends the children (``embedded/leash.py``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tenure.cli.embedded.deployment import Deployment
from tenure.cli.embedded.member import Member
from tenure.cli.embedded.processes import EmbeddedError
from tenure.model.text import visible

WATCH_S = 0.5
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 15.0
SETTLED_S = 30.0
"""A process that lived so long starts again without delay when it dies."""
LABELS = 11
"""Columns in front of what is said about a deployment."""


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end."""


@dataclass
class Revival:
    """When to start a dead process again: at once, then after longer and longer delays."""

    delay_s: float = 0.0
    started_at: float = field(default_factory=time.monotonic)
    due_at: float | None = None

    def died(self, now: float) -> float:
        """Note a death; return the seconds to wait before the next start."""
        if now - self.started_at >= SETTLED_S:
            self.delay_s = 0.0
        wait_s = self.delay_s
        self.delay_s = min(LONGEST_DELAY_S, max(FIRST_DELAY_S, 2 * self.delay_s))
        self.due_at = now + wait_s
        return wait_s

    def started(self, now: float) -> None:
        """Note a start."""
        self.started_at = now
        self.due_at = None


class Watch:
    """Keeps a deployment complete. ``look`` is called again and again by whoever waits for the end."""

    def __init__(self, deployment: Deployment, console: Console) -> None:
        self._deployment = deployment
        self._console = console
        self._revivals: dict[str, Revival] = {}
        self._stores = Revival()

    def look(self, now: float) -> None:
        """Start what has died, as soon as its delay is over."""
        self._look_at_stores(now)
        for member in self._deployment.dead():
            revival = self._revivals.setdefault(member.name, Revival())
            if revival.due_at is None:
                wait_s = revival.died(now)
                self._say(
                    f"{member.name} ended with {member.exit_code} (log: {member.log}); starting it in {wait_s:g} s"
                )
            if revival.due_at is not None and now >= revival.due_at:
                self._start(member, revival, now)

    def _start(self, member: Member, revival: Revival, now: float) -> None:
        try:
            member.start()
        except OSError as error:
            self._say(f"{member.name} cannot be started: {error}")
        revival.started(now)

    def _look_at_stores(self, now: float) -> None:
        if self._stores.due_at is not None and now < self._stores.due_at:
            return
        try:
            for name in self._deployment.revive_stores():
                self._say(f"{name} had died; it was started again")
                self._stores.started(now)
        except (EmbeddedError, OSError) as error:
            wait_s = self._stores.died(now)
            self._say(f"{error}\nnext attempt in {wait_s:g} s")

    def _say(self, text: str) -> None:
        self._console.print(visible(text), style="yellow", markup=False, highlight=False)


ALLOW_INSECURE = "TENURE_ALLOW_INSECURE"


def up(
    data: Path,
    grpc: str = "127.0.0.1:7070",
    http: str = "127.0.0.1:7071",
    coordinators: int = 2,
    workers: int = 3,
    worker_args: tuple[str, ...] = ("--allow-command",),
    drain_s: float = 30.0,
) -> None:
    """Run a deployment in the foreground until a signal asks for the end.

    Args:
        data: the data directory; what is in it is continued.
        grpc: ``host:port`` of the first coordinator's gRPC; port 0 is a free one.
        http: the same for its HTTP.
        coordinators: how many.
        workers: how many.
        worker_args: arguments of each worker's command.
        drain_s: how long running jobs may take to finish at the end.

    Raises:
        EmbeddedError: a part did not start.
    """
    console = Console(stderr=True)
    deployment = Deployment(
        data,
        coordinators=coordinators,
        workers=workers,
        worker_args=worker_args,
        grpc=grpc,
        http=http,
        drain_s=drain_s,
        # The others of the environment are another tenure's; this one says what its user takes upon himself.
        env={name: os.environ[name] for name in (ALLOW_INSECURE,) if name in os.environ},
        tell=lambda line: console.print(f"{line} …", style="dim", markup=False, highlight=False),
    )
    with _signals_interrupt():
        try:
            deployment.start()
        except Interrupted:
            raise typer.Exit(130) from None
        try:
            _print_where(Console(), deployment)
            watch = Watch(deployment, console)
            while True:
                time.sleep(WATCH_S)
                watch.look(time.monotonic())
        except Interrupted:
            console.print("stopping: running jobs may finish; once more to stop at once", style="yellow")
        finally:
            _stop(deployment, console)


def up_command(
    data: Annotated[Path, typer.Option(help="Directory for all data; continued where it exists.")] = Path(".tenure/up"),
    grpc: Annotated[
        str, typer.Option(help="HOST:PORT for gRPC of the first coordinator; port 0: a free one.")
    ] = "127.0.0.1:7070",
    http: Annotated[str, typer.Option(help="HOST:PORT for its HTTP; port 0: a free one.")] = "127.0.0.1:7071",
    coordinators: Annotated[int, typer.Option(min=1, max=32, help="How many coordinators.")] = 2,
    workers: Annotated[int, typer.Option(min=0, max=256, help="How many workers.")] = 3,
    imports: Annotated[
        list[str] | None, typer.Option("--import", help="Module that declares handlers, for every worker; repeatable.")
    ] = None,
    pools: Annotated[
        list[str] | None, typer.Option("--pool", help="Route prefix that every worker serves; repeatable.")
    ] = None,
    capacity: Annotated[int | None, typer.Option(min=1, help="Jobs at the same time, per worker.")] = None,
    allow_command: Annotated[
        bool, typer.Option(help="Let workers serve the built-in kind 'command', which runs programs.")
    ] = True,
    drain_s: Annotated[
        float, typer.Option("--drain", min=0, help="Seconds for running jobs to finish when stopped.")
    ] = 30.0,
) -> None:
    """Run Postgres, etcd, coordinators and workers on this machine until Ctrl-C.

    Once all are ready, DIR/tenure.env names them: set -a; . DIR/tenure.env
    """
    for option, address in (("--grpc", grpc), ("--http", http)):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise typer.BadParameter(f"{address!r} is not HOST:PORT", param_hint=option)
    arguments = [
        *(part for module in imports or () for part in ("--import", module)),
        *(part for pool in pools or () for part in ("--pool", pool)),
        *(("--capacity", str(capacity)) if capacity else ()),
        *(("--allow-command",) if allow_command else ()),
    ]
    up(data, grpc, http, coordinators, workers, tuple(arguments), drain_s)


def _stop(deployment: Deployment, console: Console) -> None:
    try:
        deployment.stop()
    except KeyboardInterrupt:
        console.print("stopping at once", style="yellow")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        deployment.abort()
        raise typer.Exit(130) from None
    console.print("stopped", style="dim")


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Within it, SIGINT, SIGTERM and SIGHUP raise ``Interrupted`` in the main thread."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_where(console: Console, deployment: Deployment) -> None:
    env = deployment.env
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("gRPC", "  ".join(deployment.coordinator_addresses))
    table.add_row("HTTP", "  ".join(f"http://{address}" for address in deployment.http_addresses))
    table.add_row("dashboard", f"http://{deployment.http_addresses[0]}/ui/")
    table.add_row("Postgres", _without_password(env["TENURE_POSTGRES_DSN"]))
    table.add_row("etcd", env["TENURE_ETCD_ENDPOINTS"])
    table.add_row("workers", str(len(deployment.workers)))
    table.add_row("logs", str(deployment.folder.path / "log"))
    console.print(table)
    # Never broken into lines: it is there to be copied.
    join = f"set -a; . {deployment.env_file}; set +a"
    console.print(Text.assemble(("join".ljust(LABELS), "bold"), join), soft_wrap=True)
    console.print("tenure is ready; Ctrl-C stops it", style="green")


def _without_password(dsn: str) -> str:
    scheme, _, rest = dsn.partition("://")
    user, _, place = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}@{place.partition('?')[0]}"
