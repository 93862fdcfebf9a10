"""The options that select jobs: the same for listing them and for what is done to many of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tenure.cli import completing, parse
from tenure.model.states import JobState

Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Only of this namespace.", autocompletion=completing.namespaces)
]
Kind = Annotated[str | None, typer.Option("--kind", "-k", help="Only of this kind.", autocompletion=completing.kinds)]
Route = Annotated[
    str | None,
    typer.Option(
        "--route", "--pool", help="Only under this route, by whole segments.", autocompletion=completing.pools
    ),
]
States = Annotated[list[JobState] | None, typer.Option("--state", "-s", help="Only in this state; repeat it.")]
Labels = Annotated[list[str] | None, typer.Option("--label", "-l", help="Only with KEY=VALUE; repeat it.")]
ParentId = Annotated[str | None, typer.Option("--parent", help="Only children of this job.")]
WorkflowId = Annotated[
    str | None, typer.Option("--workflow", help="Only members of this workflow.", autocompletion=completing.workflows)
]
CreatedAfter = Annotated[str | None, typer.Option("--created-after", help="Only younger than this ISO 8601 time.")]
CreatedBefore = Annotated[str | None, typer.Option("--created-before", help="Only older than this time.")]
FinishedAfter = Annotated[
    str | None, typer.Option("--finished-after", help="Only what ended from this ISO 8601 time on.")
]
FinishedBefore = Annotated[str | None, typer.Option("--finished-before", help="Only what ended before this time.")]
MaybeJobIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Ids of jobs.", show_default=False, autocompletion=completing.jobs),
]
All = Annotated[bool, typer.Option("--all", help="Every job; needed when no other option selects.")]
Preview = Annotated[bool, typer.Option("--preview", help="Only say how many and which; do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before doing it to many.")]


@dataclass(frozen=True, slots=True)
class Selection:
    """The options as given; ``keywords`` are what the client's methods take."""

    namespace: str | None
    kind: str | None
    route: str | None
    states: list[JobState] | None
    labels: list[str] | None
    parent: str | None
    after: str | None
    before: str | None
    workflow: str | None = None

    @property
    def selects(self) -> bool:
        """Say whether any option was given."""
        return any(getattr(self, name) for name in self.__slots__)

    def keywords(self) -> dict[str, Any]:
        """Return the filter.

        Raises:
            InvalidInput: a label or a time is malformed.
        """
        return {
            "namespace": self.namespace,
            "kind": self.kind,
            "route_prefix": self.route,
            "states": self.states or (),
            "labels": parse.labels(self.labels or ()),
            "parent_id": self.parent,
            "created_after": parse.instant(self.after, "--created-after"),
            "created_before": parse.instant(self.before, "--created-before"),
            "workflow_id": self.workflow,
        }
