"""The template of a schedule comes back as it was given, so that what is read can be written again."""

from __future__ import annotations

from dataclasses import fields

from tenure.client import NewJob, NewSchedule, Retry
from tenure.client.schedules import schedule_from_wire, schedule_to_wire
from tenure.model.retry import Backoff
from tenure.model.unique import OnDuplicate
from tenure.v1 import schedule_service_pb2 as pb
from tenure.v1.schedule_wire import schedule_from_pb, schedule_to_pb

FOR_ONE_JOB = {
    *("activate_at", "idempotency_key", "idempotency_ttl_s", "depends_on", "ref"),
    *("trigger", "upstream_failure"),  # of what it depends on
}


def test_every_field_of_a_template_comes_back() -> None:
    job = NewJob(
        kind="k",
        payload={"a": 1},
        namespace="n",
        route="a/b",
        priority=3,
        delay_s=1.0,
        retry=Retry(
            max_attempts=5,
            backoff=Backoff.LINEAR,
            initial_backoff_s=2.0,
            multiplier=3.0,
            max_backoff_s=4.0,
            jitter=0.5,
            non_retryable=("A",),
        ),
        ttl_s=5.0,
        timeout_s=6.0,
        start_within_s=7.0,
        job_timeout_s=8.0,
        max_crashes=9,
        labels={"l": "1"},
        limits=("x",),
        requires={"r": "2"},
        unique_key="u",
        on_duplicate=OnDuplicate.REPLACE,
    )
    defaults = NewJob(kind="")
    given = {field.name for field in fields(NewJob) if getattr(job, field.name) != getattr(defaults, field.name)}
    start_by = {"start_by"}  # an instant, where start_within_s is given
    assert given == {field.name for field in fields(NewJob)} - FOR_ONE_JOB - start_by
    message = schedule_to_wire(NewSchedule(name="s", namespace="n", interval_s=60, job=job))
    assert schedule_from_wire(pb.Schedule(spec=schedule_to_pb(schedule_from_pb(message)))).spec.job == job
