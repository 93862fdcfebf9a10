"""``tenure schedules``: rules that produce jobs; make them, look at them, change them, try them out."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.cli import completing, parse, tables
from tenure.cli.output import (
    Format,
    Output,
    ago,
    print_data,
    print_done,
    print_fields,
    print_table,
    span,
    to_stderr,
    to_stdout,
)
from tenure.cli.progress import Busy
from tenure.cli.session import Address, connect
from tenure.cli.tables import EVERY, Column, Watch
from tenure.cli.tables import Every as EveryLook
from tenure.model.errors import FieldViolation, InvalidInput
from tenure.model.routes import DEFAULT_NAMESPACE, DEFAULT_ROUTE
from tenure.model.schedule_choices import Fold, Gap, Misfire, Overlap

if TYPE_CHECKING:
    from tenure.client import NewSchedule, Schedule

app = typer.Typer(help="Make, show, change, pause, trigger, backfill and preview schedules.", no_args_is_help=True)
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name or id of the schedule.", autocompletion=completing.schedules)
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The organisation it belongs to.")]
Cron = Annotated[
    str | None,
    typer.Option("--cron", help="Five fields, six with seconds first, or @daily, @hourly …; in quotes."),
]
Every = Annotated[str | None, typer.Option("--every", help="Instead of --cron: an interval (90s, 15m, 1h30m, 7d).")]
Zone = Annotated[
    str | None, typer.Option("--time-zone", "-z", help="IANA name, such as Europe/Berlin.", show_default="UTC")
]
GapRule = Annotated[
    Gap | None, typer.Option("--gap", help="Times that the clock leaps over: left out, or once right after.")
]
FoldRule = Annotated[Fold | None, typer.Option("--fold", help="Times that come twice: the first, or both.")]
OverlapRule = Annotated[
    Overlap | None,
    typer.Option("--overlap", help="While an earlier job has not ended.", show_default="allow"),
]
MisfireRule = Annotated[
    Misfire | None,
    typer.Option("--misfire", help="Ticks that nobody was there to see, within --window.", show_default="one"),
]
Window = Annotated[
    str | None, typer.Option("--window", help="How far back misfires are made up for.", show_default="1h")
]
Jitter = Annotated[str | None, typer.Option("--jitter", help="Start each job up to so much after its tick.")]
StartsAt = Annotated[str | None, typer.Option("--starts-at", help="No tick before this ISO 8601 time.")]
EndsAt = Annotated[str | None, typer.Option("--ends-at", help="No tick from this time on.")]
Route = Annotated[
    str | None,
    typer.Option("--pool", "--route", "-p", help="Where its jobs should run: a pool, or a path below it.",
                 show_default=DEFAULT_ROUTE),
]  # fmt: skip
Priority = Annotated[int | None, typer.Option("--priority", help="Of its jobs; higher runs first.", show_default="0")]
Ttl = Annotated[
    str | None,
    typer.Option("--ttl", help="How soon a job restarts elsewhere if its worker dies.", show_default="10s"),
]
AttemptTimeout = Annotated[
    str | None, typer.Option("--attempt-timeout", help="The most that one attempt of a job may take.")
]
MaxAttempts = Annotated[
    int | None, typer.Option("--max-attempts", help="Attempts of a job that may end in an error.", show_default="3")
]
Labels = Annotated[list[str] | None, typer.Option("--label", "-l", help="KEY=VALUE of its jobs; repeat it.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name, unique in its namespace.")],
    kind: Annotated[str, typer.Argument(metavar="KIND", help="The name that selects a handler.")],
    payload: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="The payload: JSON, @FILE, or - for stdin.", show_default="null"),
    ] = None,
    cron: Cron = None,
    every: Every = None,
    time_zone: Zone = None,
    gap: GapRule = None,
    fold: FoldRule = None,
    overlap: OverlapRule = None,
    misfire: MisfireRule = None,
    window: Window = None,
    jitter: Jitter = None,
    starts_at: StartsAt = None,
    ends_at: EndsAt = None,
    paused: Annotated[bool, typer.Option("--paused", help="Let it begin only when it is resumed.")] = False,
    route: Route = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    priority: Priority = None,
    ttl: Ttl = None,
    attempt_timeout: AttemptTimeout = None,
    max_attempts: MaxAttempts = None,
    label: Labels = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Create a schedule and print it. It ticks from now on; the same once more prints what is there."""
    from tenure.client import NewJob, NewSchedule

    _require_one_rule(cron, every)
    job = NewJob(kind=kind, payload=parse.payload(payload), namespace=namespace)
    job = _job_changed(job, route, priority, ttl, attempt_timeout, max_attempts, label)
    schedule = _changed(
        NewSchedule(name=name, namespace=namespace, job=job, paused=paused),
        cron, every, time_zone, gap, fold, overlap, misfire, window, jitter, starts_at, ends_at,
    )  # fmt: skip
    with connect(coordinator) as client:
        show(client.create_schedule(schedule), output)


@app.command("update")
def update(
    name: Name,
    kind: Annotated[str | None, typer.Option("--kind", "-k", help="Another handler for its jobs.")] = None,
    payload: Annotated[
        str | None, typer.Option("--payload", help="Another payload: JSON, @FILE, or - for stdin.")
    ] = None,
    cron: Cron = None,
    every: Every = None,
    time_zone: Zone = None,
    gap: GapRule = None,
    fold: FoldRule = None,
    overlap: OverlapRule = None,
    misfire: MisfireRule = None,
    window: Window = None,
    jitter: Jitter = None,
    starts_at: StartsAt = None,
    ends_at: EndsAt = None,
    route: Route = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    priority: Priority = None,
    ttl: Ttl = None,
    attempt_timeout: AttemptTimeout = None,
    max_attempts: MaxAttempts = None,
    label: Labels = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Change what is given and leave the rest. Exits 4 if somebody else changed it at the same moment."""
    with connect(coordinator) as client:
        before = client.get_schedule(name, namespace=namespace)
        job = _job_changed(before.spec.job, route, priority, ttl, attempt_timeout, max_attempts, label)
        if kind is not None:
            job = dataclasses.replace(job, kind=kind)
        if payload is not None:
            job = dataclasses.replace(job, payload=parse.payload(payload))
        spec = dataclasses.replace(before.spec, job=job)
        if cron is not None and every is None:
            spec = dataclasses.replace(spec, interval_s=None)
        if every is not None and cron is None:
            spec = dataclasses.replace(spec, cron=None, gap=None, fold=None)
        spec = _changed(
            spec, cron, every, time_zone, gap, fold, overlap, misfire, window, jitter, starts_at, ends_at
        )  # fmt: skip
        show(client.update_schedule(spec, revision=before.revision), output)


@app.command("list")
def list_schedules(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only of this namespace.")] = None,
    watch: Watch = False,
    every: EveryLook = EVERY,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """List schedules by namespace and name."""
    columns: list[Column[Schedule]] = [
        Column("name", lambda s: s.name, rank=0, is_whole=True),
        Column("namespace", lambda s: s.spec.namespace, rank=2),
        Column("rule", lambda s: _rule(s.spec), rank=3),
        Column("kind", lambda s: s.spec.job.kind, rank=4),
        Column("next", lambda s: "paused" if s.is_paused else ago(s.next_at) or "never", rank=0, is_whole=True),
        Column("last", lambda s: ago(s.last_tick), rank=1, is_whole=True),
        Column("fired", lambda s: s.fired, rank=5, is_whole=True),
        Column("skipped", lambda s: s.skipped, rank=6, is_whole=True),
        Column("overlap", lambda s: s.spec.overlap or "", is_wide=True),
        Column("last job", lambda s: s.last_job_id or "", is_wide=True, is_whole=True),
    ]
    with connect(coordinator) as client:
        tables.show(
            lambda: list(client.schedules(namespace=namespace)),
            columns,
            output,
            empty="no schedules",
            watch=watch,
            every=every,
        )


@app.command("get")
def get(
    name: Name, namespace: Namespace = DEFAULT_NAMESPACE, coordinator: Address = None, output: Output = Format.TABLE
) -> None:
    """Show one schedule."""
    with connect(coordinator) as client:
        show(client.get_schedule(name, namespace=namespace), output)


@app.command("delete")
def delete(
    name: Name, namespace: Namespace = DEFAULT_NAMESPACE, coordinator: Address = None, output: Output = Format.TABLE
) -> None:
    """Forget a schedule. The jobs that it made go on."""
    with connect(coordinator) as client:
        client.delete_schedule(name, namespace=namespace)
    print_done(f"deleted {name}", output, name=name, deleted=True)


@app.command("pause")
def pause(
    name: Name, namespace: Namespace = DEFAULT_NAMESPACE, coordinator: Address = None, output: Output = Format.TABLE
) -> None:
    """Let it tick no more until it is resumed. The jobs that it made go on."""
    with connect(coordinator) as client:
        show(client.pause_schedule(name, namespace=namespace), output)


@app.command("resume")
def resume(
    name: Name, namespace: Namespace = DEFAULT_NAMESPACE, coordinator: Address = None, output: Output = Format.TABLE
) -> None:
    """Let it tick again, from now on: what it did not tick meanwhile is not made up for."""
    with connect(coordinator) as client:
        show(client.resume_schedule(name, namespace=namespace), output)


@app.command("trigger")
def trigger(
    name: Name,
    key: Annotated[
        str | None, typer.Option("--key", help="Idempotency key: the same again answers with the first job.")
    ] = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a job now, whatever rule, overlap and pause say, and print its id."""
    with connect(coordinator) as client:
        made = client.trigger_schedule(name, namespace=namespace, idempotency_key=key)
    if output.is_data:
        print_data(made, output)
    else:
        to_stdout(made.job_id)


@app.command("backfill")
def backfill(
    name: Name,
    start: Annotated[str, typer.Option("--from", help="Ticks from this ISO 8601 time on ...")],
    until: Annotated[str, typer.Option("--until", help="... and before this one, which is not after now.")],
    namespace: Namespace = DEFAULT_NAMESPACE,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Make the jobs of past ticks, leaving out those that have theirs, and list them. At most 1,000 at once."""
    first, last = parse.instant(start, "--from"), parse.instant(until, "--until")
    assert first is not None and last is not None
    with connect(coordinator) as client, Busy("making the jobs of past ticks"):
        made = client.backfill_schedule(name, first, last, namespace=namespace)
    if output.is_data:
        print_data(made, output)
        return
    print_table(
        ("tick", "job", ""),
        [(one.tick.isoformat() if one.tick else "", one.job_id, "" if one.created else "was there") for one in made],
        empty="no ticks in this range",
    )


@app.command("preview")
def preview(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name or id of a stored schedule; or give a rule.")
    ] = None,
    cron: Cron = None,
    every: Every = None,
    time_zone: Zone = None,
    gap: GapRule = None,
    fold: FoldRule = None,
    starts_at: StartsAt = None,
    ends_at: EndsAt = None,
    count: Annotated[int, typer.Option("--count", help="How many ticks, at most 1,000.")] = 10,
    after: Annotated[
        str | None, typer.Option("--after", help="From this ISO 8601 time on.", show_default="now")
    ] = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Print the next ticks of a stored schedule, or of a rule that is not stored."""
    from tenure.client import NewJob, NewSchedule

    rule = (cron, every, time_zone, gap, fold, starts_at, ends_at)
    if name is not None and any(part is not None for part in rule):
        raise InvalidInput([FieldViolation("NAME", "is for a stored schedule: give either a name or a rule")])
    which: Any = name
    if name is None:
        _require_one_rule(cron, every)
        draft = NewSchedule(name="preview", namespace=namespace, job=NewJob(kind="preview", namespace=namespace))
        which = _changed(draft, cron, every, time_zone, gap, fold, None, None, None, None, starts_at, ends_at)
    with connect(coordinator) as client:
        ticks = client.preview_schedule(
            which, namespace=namespace, count=count, after=parse.instant(after, "--after")
        )  # fmt: skip
    if output.is_data:
        print_data(ticks, output)
        return
    print_table(
        ("tick", "utc", "in"),
        [(tick.local, f"{tick.at:%Y-%m-%d %H:%M:%S}", ago(tick.at)) for tick in ticks],
        empty="no further ticks",
    )
    if len(ticks) < count:
        to_stderr("and no more")


def show(schedule: Schedule, output: Format) -> None:
    """Print one schedule."""
    if output.is_data:
        print_data(schedule, output)
        return
    spec = schedule.spec
    skipped = f"{schedule.skipped} ({ago(schedule.skipped_at)}: {schedule.skip_reason})" if schedule.skipped else None
    print_fields(
        (
            ("name", spec.name),
            ("id", schedule.id),
            ("namespace", spec.namespace),
            ("rule", _rule(spec)),
            ("gap, fold", ", ".join(str(rule) for rule in (spec.gap, spec.fold) if rule)),
            ("overlap", str(spec.overlap)),
            ("misfire", f"{spec.misfire}, within {span(spec.window_s or 0)}"),
            ("jitter", span(spec.jitter_s) if spec.jitter_s else None),
            ("starts", spec.starts_at.isoformat() if spec.starts_at else None),
            ("ends", spec.ends_at.isoformat() if spec.ends_at else None),
            ("kind", spec.job.kind),
            ("route", spec.job.route),
            ("payload", None if spec.job.payload is None else json.dumps(spec.job.payload, ensure_ascii=False)),
            ("next", "paused" if schedule.is_paused else _when(schedule.next_at) or "never"),
            ("queued", _when(schedule.queued_tick)),
            ("last", _when(schedule.last_tick)),
            ("last job", schedule.last_job_id),
            ("fired", schedule.fired or None),
            ("skipped", skipped),
            ("revision", schedule.revision),
        )
    )


def _require_one_rule(cron: str | None, every: str | None) -> None:
    if (cron is None) == (every is None):
        raise InvalidInput(
            [FieldViolation("--cron", "give either --cron or --every")],
            hint="for example --cron '30 2 * * *' or --every 15m",
        )


def _changed(
    schedule: NewSchedule,
    cron: str | None,
    every: str | None,
    time_zone: str | None,
    gap: Gap | None,
    fold: Fold | None,
    overlap: Overlap | None,
    misfire: Misfire | None,
    window: str | None,
    jitter: str | None,
    starts_at: str | None,
    ends_at: str | None,
) -> NewSchedule:
    given: dict[str, Any] = {
        "cron": cron,
        "interval_s": parse.duration_s(every, "--every"),
        "time_zone": time_zone,
        "gap": gap,
        "fold": fold,
        "overlap": overlap,
        "misfire": misfire,
        "window_s": parse.duration_s(window, "--window"),
        "jitter_s": parse.duration_s(jitter, "--jitter"),
        "starts_at": parse.instant(starts_at, "--starts-at"),
        "ends_at": parse.instant(ends_at, "--ends-at"),
    }
    return dataclasses.replace(schedule, **{name: value for name, value in given.items() if value is not None})


def _job_changed(
    job: Any,
    route: str | None,
    priority: int | None,
    ttl: str | None,
    attempt_timeout: str | None,
    max_attempts: int | None,
    label: list[str] | None,
) -> Any:
    from tenure.client import Retry

    given: dict[str, Any] = {
        "route": route,
        "priority": priority,
        "ttl_s": parse.duration_s(ttl, "--ttl"),
        "timeout_s": parse.duration_s(attempt_timeout, "--attempt-timeout"),
        "retry": None if max_attempts is None else dataclasses.replace(job.retry or Retry(), max_attempts=max_attempts),
        "labels": parse.labels(label) if label else None,
    }
    return dataclasses.replace(job, **{name: value for name, value in given.items() if value is not None})


def _rule(spec: NewSchedule) -> str:
    if spec.cron is not None:
        return f"{spec.cron} {spec.time_zone}"
    return f"every {span(spec.interval_s or 0)}"


def _when(at: Any) -> str | None:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S} ({ago(at)})" if at else None
