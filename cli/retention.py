"""``tenure retention``: how long jobs are kept after their end, what is held, and what would go."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tenure.cli import parse
from tenure.cli.output import Format, Output, ago, print_data, print_done, print_table, span, state_text, to_stderr
from tenure.cli.session import Address, connect
from tenure.model.errors import FieldViolation, InvalidInput

if TYPE_CHECKING:
    from tenure.client import LegalHold, RetentionPolicy


class Final(StrEnum):
    """States in which a job has ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


FOR_EVER = "forever"
app = typer.Typer(help="How long jobs are kept after their end; what would go; legal holds.", no_args_is_help=True)
holds = typer.Typer(help="Labels: jobs that have one are kept, whatever the policies say.", no_args_is_help=True)
app.add_typer(holds, name="holds")
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="For jobs of this namespace.", show_default="any")
]
Kind = Annotated[str | None, typer.Option("--kind", "-k", help="For jobs of this kind.", show_default="any")]
State = Annotated[
    Final | None, typer.Option("--state", "-s", help="For jobs that ended like this.", show_default="any")
]
Label = Annotated[str, typer.Argument(metavar="KEY=VALUE", help="The label.")]


@app.command("set")
def set_(
    keep: Annotated[str, typer.Argument(metavar="KEEP", help="Since their end: 30d, 12h; or `forever`.")],
    namespace: Namespace = None,
    kind: Kind = None,
    state: State = None,
    archive: Annotated[bool, typer.Option("--archive", help="Write them to the archive before they go.")] = False,
    archive_keep: Annotated[
        str | None, typer.Option("--archive-keep", help="Keep files of the archive so long.", show_default=FOR_EVER)
    ] = None,
    storage_class: Annotated[
        str | None,
        typer.Option("--storage-class", help="S3 storage class of files of the archive.", show_default="the bucket's"),
    ] = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Set how long jobs are kept after their end. What has expired is removed for good: look at `preview` first.

    Of the policies that cover a job the most specific one decides: a namespace weighs more than a kind, a kind more
    than a state. Without any a job is kept for ever.
    """
    with connect(coordinator) as client:
        policy = client.put_retention(
            namespace=namespace,
            kind=kind,
            state=state,
            keep_s=_keep_s(keep),
            archive=archive,
            archive_keep_s=_keep_s(archive_keep, "--archive-keep") if archive_keep else None,
            storage_class=storage_class,
        )
    _show([policy], output)


@app.command("get")
def get(
    namespace: Namespace = None,
    kind: Kind = None,
    state: State = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the policy that decides about such jobs."""
    with connect(coordinator) as client:
        policy = client.retention(namespace=namespace, kind=kind, state=state, deciding=True)
    _show([policy], output)


@app.command("list")
def list_policies(coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """List the policies."""
    with connect(coordinator) as client:
        found = client.retentions()
    _show(found, output)


@app.command("delete")
def delete(
    namespace: Namespace = None,
    kind: Kind = None,
    state: State = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Forget the policy that was set for just these."""
    with connect(coordinator) as client:
        deleted = client.delete_retention(namespace=namespace, kind=kind, state=state)
    name = "/".join(part or "*" for part in (namespace, kind, state))
    print_done(f"{name} {'deleted' if deleted else 'was not set'}", output, policy=name, deleted=deleted)
    if not deleted:
        raise typer.Exit(3)


@app.command("preview")
def preview(
    only: Annotated[
        str | None, typer.Option("--only", metavar="NAMESPACE", help="Count in this namespace alone.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", help="As if this were set for --namespace, --kind and --state, too.")
    ] = None,
    namespace: Namespace = None,
    kind: Kind = None,
    state: State = None,
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Count what would go now, by policy, namespace and state; and what has expired and is kept for now."""
    from tenure.client import JobState, RetentionPolicy

    if keep is None and any((namespace, kind, state)):
        raise InvalidInput(
            [FieldViolation("--keep", "belongs to --namespace, --kind and --state")],
            hint="to count in one namespace alone: --only NAMESPACE",
        )
    policy = None
    if keep is not None:
        ended = JobState(state) if state else None
        policy = RetentionPolicy(namespace=namespace, kind=kind, state=ended, keep_s=_keep_s(keep))
    with connect(coordinator) as client:
        found = client.preview_retention(namespace=only, policy=policy)
        has_files = any(one.archive_keep_s for one in client.retentions())
        files = client.preview_archive(namespace=only, policy=policy) if has_files else []
    if output.is_data:
        print_data([*found, *files], output)
        return
    print_table(
        ("namespace", "state", "would go", "held", "needed", "oldest", "policy"),
        [
            (
                one.namespace,
                state_text(one.state),
                one.jobs,
                one.held or "",
                one.needed or "",
                ago(one.oldest),
                f"{_name(one.policy)}: {_kept(one.policy)}",
            )
            for one in found
        ],
        empty="nothing would go",
    )
    for one in files:
        to_stderr(
            f"and {one.files} files of the archive of {one.namespace}, with {one.jobs} jobs, but for what is held:"
            f" {_name(one.policy)}, {_archived(one.policy)}"
        )


@holds.command("set")
def set_hold(
    label: Label,
    reason: Annotated[str, typer.Option("--reason", help="In words.")] = "",
    coordinator: Address = None,
    output: Output = Format.TABLE,
) -> None:
    """Keep all jobs with a label, in every namespace, until the hold is lifted."""
    [(key, value)] = parse.labels([label], "KEY=VALUE").items()
    with connect(coordinator) as client:
        hold = client.put_hold(key, value, reason)
    _show_holds([hold], output)


@holds.command("list")
def list_holds(coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """List the legal holds."""
    with connect(coordinator) as client:
        found = client.holds()
    _show_holds(found, output)


@holds.command("delete")
def delete_hold(label: Label, coordinator: Address = None, output: Output = Format.TABLE) -> None:
    """Lift a hold. What has expired meanwhile goes soon."""
    [(key, value)] = parse.labels([label], "KEY=VALUE").items()
    with connect(coordinator) as client:
        deleted = client.delete_hold(key, value)
    print_done(f"{label} {'is lifted' if deleted else 'was not held'}", output, label=label, deleted=deleted)
    if not deleted:
        raise typer.Exit(3)


def _keep_s(text: str, option: str = "KEEP") -> int | None:
    return None if text == FOR_EVER else int(parse.duration_s(text, option) or 0)


def _name(policy: RetentionPolicy) -> str:
    return "/".join(part or "*" for part in (policy.namespace, policy.kind, policy.state))


def _kept(policy: RetentionPolicy) -> str:
    return FOR_EVER if policy.keep_s is None else span(float(policy.keep_s))


def _archived(policy: RetentionPolicy) -> str:
    if not policy.archive:
        return ""
    kept = FOR_EVER if policy.archive_keep_s is None else span(float(policy.archive_keep_s))
    return f"{kept}, {policy.storage_class}" if policy.storage_class else kept


def _show(policies: list[RetentionPolicy], output: Format) -> None:
    if output.is_data:
        print_data(policies, output)
        return
    print_table(
        ("namespace", "kind", "state", "kept", "in the archive"),
        [
            (one.namespace or "any", one.kind or "any", one.state or "any", _kept(one), _archived(one))
            for one in policies
        ],
        empty="no policy is set, everything is kept: `tenure retention preview --keep 30d` says what one would remove",
    )


def _show_holds(found: list[LegalHold], output: Format) -> None:
    if output.is_data:
        print_data(found, output)
        return
    print_table(
        ("label", "reason", "set by", "since"),
        [(f"{one.key}={one.value}", one.reason, one.set_by, ago(one.set_at)) for one in found],
        empty="nothing is held",
    )
