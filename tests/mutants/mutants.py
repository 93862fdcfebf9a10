"""The mutants: each takes one rule out of the code, and names the scenarios that must then fail.

Owns the list. Invariant, which ``test_mutants`` checks: every old text is in its file exactly once, so that a mutant
cannot rot unseen when the code moves on. A control is no rule but a help: with it taken away the scenarios must pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

QUERIES = "store/postgres/queries"
POSTGRES, ETCD, COORDINATOR = "tests/postgres", "tests/etcd", "tests/coordinator"
WORKER, EXECUTE, E2E, MODEL, SIMULATION = (
    "tests/worker",
    "tests/worker_execute",
    "tests/e2e",
    "tests/model",
    "tests/simulation",
)


@dataclass(frozen=True, slots=True)
class Edit:
    """A replacement in one file."""

    file: str
    old: str
    new: str

    def applied_to(self, text: str) -> str:
        """Return the text with the edit made. Raises ``ValueError`` unless the old text is there exactly once."""
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.file}: the old text is there {count} times, not once: {self.old!r}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule taken away. Every one of ``scenarios`` (pytest node ids) must fail; of a control, pass."""

    name: str
    rule: str
    edits: tuple[Edit, ...]
    scenarios: tuple[str, ...]
    control: bool = False

    @property
    def files(self) -> str:
        """Where the edits are, for the table."""
        return "<br>".join(dict.fromkeys(f"`{edit.file.rpartition('/')[2]}`" for edit in self.edits))


def _mutant(name: str, rule: str, edits: Sequence[tuple[str, str, str]], *scenarios: str) -> Mutant:
    return Mutant(name, rule, tuple(Edit(*edit) for edit in edits), scenarios)


def _control(name: str, rule: str, edits: Sequence[tuple[str, str, str]], *scenarios: str) -> Mutant:
    return Mutant(name, rule, tuple(Edit(*edit) for edit in edits), scenarios, control=True)


_SCHEDULE = (
    _mutant(
        "tick-without-turn",
        "a schedule moves only from the turn at which it was seen",
        [
            (f"{QUERIES}/move_schedules.sql", " AND s.turn = g.turn ORDER BY", " ORDER BY"),
            (f"{QUERIES}/move_schedules.sql", "AND g.id = s.id AND s.turn = g.turn", "AND g.id = s.id"),
        ],
        f"{COORDINATOR}/test_schedules.py::test_two_leaders_that_saw_the_same_tick_make_one_job",
    ),
    _mutant(
        "tick-without-key",
        "the second belt: a tick has one idempotency key, whoever fires it",
        [("coordinator/schedule.py", "(tick, tick_key(tick)) for", '(tick, f"{tick_key(tick)} {row.turn}") for')],
        f"{COORDINATOR}/test_schedules.py::test_a_tick_whose_key_is_taken_gets_no_second_job",
    ),
    _mutant(
        "tick-without-term",
        "a leader whose term is over fires nothing",
        [("store/postgres/schedules.py", "[guard] if guard is not None else []", "list[Statement]()")],
        f"{COORDINATOR}/test_schedules.py::test_a_deposed_leader_fires_nothing",
    ),
    _mutant(
        "known-tick-replaces",
        "a tick that has its job already replaces nothing",
        [("coordinator/schedule.py", "if holder is not None and kept:", "if holder is not None:")],
        f"{COORDINATOR}/test_schedule_service.py::test_a_repeated_backfill_replaces_nothing",
    ),
    _mutant(
        "overlap-forgets-triggers",
        "a job that was triggered counts for the overlap",
        [
            (
                "coordinator/api/schedule_service.py",
                "_standing(row, jobs_of(spec, row.id, [(row.now, key)]), watched=True)",
                "_standing(row, jobs_of(spec, row.id, [(row.now, key)]), watched=False)",
            )
        ],
        f"{COORDINATOR}/test_schedule_service.py::test_a_triggered_job_counts_for_the_overlap",
    ),
)

_CLAIM = (
    _mutant(
        "claim-without-absence",
        "a claim is put only where there is none",
        [("store/etcd/claims.py", "        Compare(keys.claim(request.job), _CREATE, 0),\n", "")],
        f"{ETCD}/test_claims.py::test_a_claim_is_won_once[grpc]",
        f"{ETCD}/test_claims.py::test_a_race_has_one_winner[grpc]",
    ),
    _mutant(
        "claim-over-a-hold",
        "a claim respects an operator's hold",
        [("store/etcd/claims.py", "        Compare(keys.hold(request.job), _CREATE, 0),\n", "")],
        f"{ETCD}/test_claims.py::test_jobs_in_a_batch_succeed_or_fail_alone[grpc]",
        f"{E2E}/test_faults.py::test_a_hold_stops_a_job_and_keeps_it_stopped",
    ),
    _mutant(
        "claim-over-a-slot",
        "a claim takes only slots that are free",
        [
            (
                "store/etcd/claims.py",
                "        *[Compare(keys.slot(slot), _CREATE, 0) for slot in request.slots],\n",
                "",
            )
        ],
        f"{ETCD}/test_claims.py::test_a_slot_named_twice_goes_to_one[grpc]",
    ),
    _mutant(
        "release-together-by-name",
        "a release deletes the releaser's own claim or nothing, also in a batch that is there as a whole",
        [("store/etcd/claims.py", "            compares += _identity(key, release)\n", "")],
        f"{ETCD}/test_claims.py::test_release_is_by_identity[grpc]",
        f"{COORDINATOR}/test_steps.py::test_only_the_very_claim_is_deleted",
    ),
    _mutant(
        "release-by-name",
        "a release deletes the releaser's own claim or nothing",
        [("store/etcd/claims.py", "Txn(_identity(key, release), (Delete(key),))", "Txn(then=(Delete(key),))")],
        f"{ETCD}/test_claims.py::test_release_is_by_identity[grpc]",
        f"{COORDINATOR}/test_steps.py::test_only_the_very_claim_is_deleted",
        f"{COORDINATOR}/test_ownership.py::test_the_late_report_of_an_ended_attempt_leaves_the_next_claim_alone",
    ),
    _mutant(
        "release-by-revision",
        "a release compares the lease too: revisions come again after etcd was lost",
        [("store/etcd/claims.py", ", Compare(key, _LEASE, release.lease)\n", ",\n")],
        f"{ETCD}/test_claims.py::test_release_is_by_identity[grpc]",
    ),
    _mutant(
        "lease-reused-after-unknown-claim",
        "a lease is revoked after a claim of unknown outcome: it may carry one",
        [
            (
                "worker/claim.py",
                "frozenset({ClaimOutcome.HELD, ClaimOutcome.REFUSED})",
                "frozenset({ClaimOutcome.HELD, ClaimOutcome.REFUSED, ClaimOutcome.UNKNOWN})",
            )
        ],
        f"{COORDINATOR}/test_direct_link.py::test_after_a_claim_of_unknown_outcome_the_lease_carries_no_other",
    ),
    _mutant(
        "lease-reused-after-unknown-release",
        "a lease is used again only when etcd said that its claim was deleted",
        [
            (
                "worker/claim.py",
                "[(claim.lease, gone) for claim, gone in zip(claims, deleted, strict=True)]",
                "[(claim.lease, True) for claim, _ in zip(claims, deleted, strict=True)]",
            )
        ],
        f"{COORDINATOR}/test_direct_link.py::test_after_a_release_of_unknown_outcome_the_lease_carries_no_other",
    ),
    _mutant(
        "lease-reused-after-lost-report",
        "a lease whose claim was not deleted with the report is revoked",
        [("worker/direct.py", "(report.started.lease, message.claim_deleted)", "(report.started.lease, True)")],
        f"{COORDINATOR}/test_direct_link.py::test_after_a_report_that_deleted_no_claim_the_lease_carries_no_other",
    ),
)

_ROOM = (
    _mutant(
        "claims-beyond-room",
        "a worker claims no more than it has room for",
        [("worker/direct.py", "message.offers[: max(0, self._room() - self._claiming)]", "message.offers")],
        f"{COORDINATOR}/test_direct_link.py::test_what_does_not_fit_is_not_claimed",
    ),
)

_START = (
    _mutant(
        "start-state-unchecked",
        "an attempt starts only from a row that can be started",
        [
            (
                f"{QUERIES}/start_attempts.sql",
                " AND j.state IN ('ready', 'restarting')",
                "",
            )
        ],
        f"{POSTGRES}/test_start_and_end.py::test_a_start_needs_the_attempt_that_was_seen",
        f"{COORDINATOR}/test_ownership.py::test_an_attempt_that_executes_is_not_started_over",
    ),
    _mutant(
        "start-attempt-unchecked",
        "an offer starts one attempt: the one after that which was seen",
        [(f"{QUERIES}/start_attempts.sql", " AND j.attempt = c.attempt", "")],
        f"{POSTGRES}/test_start_and_end.py::test_a_start_needs_the_attempt_that_was_seen",
        f"{COORDINATOR}/test_ownership.py::test_an_offer_that_was_overtaken_starts_nothing",
    ),
    _mutant(
        "start-unlocked",
        "of two starts at the same moment the second sees what the first wrote",
        [
            (
                f"{QUERIES}/start_attempts.sql",
                "WHERE j.ctid = c.place AND j.id = c.id AND j.state IN ('ready', 'restarting')"
                " AND j.attempt = c.attempt",
                "WHERE j.id = c.id AND EXISTS (SELECT FROM tenure.job s WHERE s.id = c.id"
                " AND s.state IN ('ready', 'restarting') AND s.attempt = c.attempt)",
            ),
        ],
        f"{POSTGRES}/test_held_rows.py::test_a_start_that_waited_for_another_starts_nothing",
    ),
    _mutant(
        "start-without-a-claim",
        "who shows no claim in etcd starts nothing",
        [
            (
                "coordinator/start.py",
                "[claim for claim in claims if claim.job_id in held]",
                "[claim for claim in claims if held is not None]",
            )
        ],
        f"{COORDINATOR}/test_steps.py::test_a_claim_that_is_not_there_starts_nothing",
        f"{COORDINATOR}/test_steps.py::test_only_one_of_two_successive_claimants_starts",
    ),
    _mutant(
        "start-by-revision",
        "a start is verified by create revision and lease together",
        [
            ("store/etcd/claims.py", "create_revision), Compare(key, _LEASE, lease)\n", "create_revision),\n"),
            (
                "store/etcd/claims.py",
                "[seen.create_revision, seen.lease] == identity\n",
                "[seen.create_revision] == identity[:1]\n",
            ),
        ],
        f"{ETCD}/test_claims.py::test_large_batches_are_split[grpc]",
    ),
    _mutant(
        "verified-by-any-member",
        "claims are verified linearizably",
        [("store/etcd/claims.py", "Txn(tuple(compares), otherwise=(read,))", "Txn(tuple(compares))")],
        f"{ETCD}/test_claims.py::test_claims_are_verified_by_a_transaction_that_etcd_answers_linearizably[grpc]",
    ),
    _mutant(
        "start-found-by-worker",
        "a start of unknown outcome belongs to the claim in the row, not to the worker that it names",
        [
            (
                f"{QUERIES}/started_by_claim.sql",
                "j.id = c.id AND j.lease = c.lease AND j.claim_revision = c.claim_revision",
                "j.id = c.id",
            )
        ],
        f"{POSTGRES}/test_start_and_end.py::test_a_start_is_found_again_by_its_very_claim",
        f"{COORDINATOR}/test_ownership.py::test_a_start_of_unknown_outcome_is_not_anothers",
    ),
    _mutant(
        "start-on-another-timeline",
        "nothing starts on a timeline of Postgres that no term has recorded",
        [
            (
                f"{QUERIES}/start_attempts.sql",
                "  AND (SELECT coalesce(k.postgres_timeline = tenure.timeline(), true) FROM tenure.cluster k)\n",
                "",
            )
        ],
        f"{POSTGRES}/test_leadership.py::test_another_timeline_raises_the_epoch_and_until_then_nothing_starts",
    ),
    _mutant(
        "start-in-a-restored-dump",
        "nothing starts in a database that came of a dump before a term has recorded it",
        [
            (
                f"{QUERIES}/start_attempts.sql",
                "coalesce(k.postgres_identity = tenure.postgres_identity(), true)",
                "true",
            )
        ],
        f"{POSTGRES}/test_leadership.py::test_nothing_starts_in_a_restored_dump_before_the_epoch_is_raised",
    ),
    _mutant(
        "fences-of-a-dump-given-twice",
        "a dump that is restored twice gives no fence twice",
        [
            (
                f"{QUERIES}/take_leadership.sql",
                "CASE WHEN j.etcd_lost OR j.postgres_restored THEN tenure.advance_fences() IS NULL END AS has_advanced",
                "false AS has_advanced",
            )
        ],
        f"{POSTGRES}/test_leadership.py::test_a_dump_that_is_restored_twice_gives_no_fence_twice",
    ),
    _mutant(
        "run-without-trust",
        "an attempt that started too late to be trusted is not run",
        [("worker/control.py", "if now >= trusted_until:", "if not started:")],
        f"{WORKER}/test_control.py::test_what_starts_after_its_trust_has_ended_is_handed_back_unrun",
    ),
)

_FENCE = (
    _mutant(
        "end-fence-unchecked",
        "an end is recorded for the attempt whose fence it carries",
        [
            (f"{QUERIES}/end_attempts.sql", " AND j.fence = r.fence AND j.state", " AND j.state"),
        ],
        f"{POSTGRES}/test_start_and_end.py::test_another_fence_ends_nothing",
        f"{POSTGRES}/test_start_and_end.py::test_a_zombie_changes_nothing_after_another_has_started",
        f"{COORDINATOR}/test_ownership.py::test_a_zombie_completes_nothing",
    ),
    _mutant(
        "return-fence-unchecked",
        "a job comes back only by the attempt whose fence the end carries",
        [
            (f"{QUERIES}/return_attempts.sql", "ON j.id = r.id AND j.fence = r.fence\n", "ON j.id = r.id\n"),
            (f"{QUERIES}/return_attempts.sql", "AND j.fence = l.fence AND j.state", "AND j.state"),
        ],
        f"{POSTGRES}/test_start_and_end.py::test_another_fence_ends_nothing",
    ),
    _mutant(
        "rowcount-unchecked",
        "zero rows mean that ownership is lost, not that the end is recorded",
        [
            (
                "coordinator/finish.py",
                'Finished(Verdict.LOST, message="the attempt is not yours any more; its result was dropped")',
                "Finished(Verdict.RECORDED)",
            )
        ],
        f"{COORDINATOR}/test_steps.py::test_an_old_fence_is_told_that_ownership_is_lost",
        f"{COORDINATOR}/test_ownership.py::test_a_zombie_completes_nothing",
    ),
    _mutant(
        "any-end-counts-as-repeated",
        "a report is a repetition only of the same end, not of the leader's",
        [("coordinator/finish.py", "if row.outcome == outcomes[row.id, row.fence] and row.state", "if row.state")],
        f"{COORDINATOR}/test_steps.py::test_a_result_that_came_after_the_leader_ended_the_attempt_is_lost_not_repeated",
    ),
    _mutant(
        "fence-not-cleared",
        "leaving executing clears the fence and the owner",
        [
            (f"{QUERIES}/return_attempts.sql", "fence = NULL, worker = NULL, ", ""),
            (
                "store/postgres/migrations/versions/0001_initial.sql",
                "CHECK ((state = 'executing') = (fence IS NOT NULL))",
                "CHECK (state <> 'executing' OR fence IS NOT NULL)",
            ),
        ],
        f"{POSTGRES}/test_transitions.py::test_leaving_executing_clears_the_owner_and_keeps_the_attempt",
    ),
    _mutant(
        "checkpoint-unfenced",
        "a checkpoint is saved under the fence",
        [(f"{QUERIES}/save_checkpoint.sql", " AND fence = %(fence)s", "")],
        f"{POSTGRES}/test_start_and_end.py::test_another_fence_ends_nothing",
        f"{COORDINATOR}/test_ownership.py::test_a_zombie_writes_nothing_beside_its_end",
    ),
    _mutant(
        "progress-unfenced",
        "progress is reported under the fence",
        [(f"{QUERIES}/report_progress.sql", " AND j.fence = r.fence", "")],
        f"{POSTGRES}/test_start_and_end.py::test_another_fence_ends_nothing",
        f"{COORDINATOR}/test_ownership.py::test_a_zombie_writes_nothing_beside_its_end",
    ),
    _mutant(
        "children-unfenced",
        "children are submitted under their parent's fence, in the same transaction",
        [
            (
                "store/postgres/submit.py",
                '        statements.append(Statement("assert_fence", {"id": child.parent_id, "fence": fence}))\n',
                "        pass\n",
            )
        ],
        f"{POSTGRES}/test_start_and_end.py::test_a_zombie_changes_nothing_after_another_has_started",
        f"{COORDINATOR}/test_steps.py::test_children_are_fenced_and_keyed_after_their_parent",
        f"{COORDINATOR}/test_ownership.py::test_a_zombie_writes_nothing_beside_its_end",
    ),
    _mutant(
        "cancel-forgotten-by-a-return",
        "an attempt that was asked to cancel does not come back",
        [
            (f"{QUERIES}/return_attempts.sql", " AND NOT j.cancel_requested ORDER", " ORDER"),
            (f"{QUERIES}/return_attempts.sql", " AND NOT j.cancel_requested\n    RETURNING", "\n    RETURNING"),
        ],
        f"{POSTGRES}/test_start_and_end.py::test_a_cancel_that_comes_before_the_end_is_not_forgotten_by_a_retry",
        f"{COORDINATOR}/test_steps.py::test_a_cancel_between_the_decision_and_the_write_of_a_retry_is_heeded",
    ),
)

_TRUST = (
    _mutant(
        "trust-from-arrival",
        "trust counts from the sending of an answered KeepAlive, not from the arrival of the answer",
        [
            (
                "store/etcd/keepalive.py",
                "answers.append(Renewal(answer.id, float(max(answer.ttl, 0)), sent_at))",
                "answers.append(Renewal(answer.id, float(max(answer.ttl, 0)), now()))",
            )
        ],
        f"{ETCD}/test_leases.py::test_late_answers_do_not_stretch_trust[grpc]",
        f"{E2E}/test_ownership.py::test_late_answers_of_etcd_let_no_handler_outlive_its_claim",
    ),
    _mutant(
        "trust-never-ends",
        "KeepAlives without an answer end the trust",
        [("model/trust.py", "return self.sent_at + self.ttl_s - margin_s(self.ttl_s)", 'return float("inf")')],
        f"{MODEL}/test_rules.py::test_one_missed_keepalive_is_survived",
        f"{E2E}/test_ownership.py::test_a_worker_cut_off_from_etcd_stops_its_handler_before_the_claim_expires",
    ),
    _mutant(
        "trust-without-margin",
        "trust ends a margin before the lease can expire",
        [("model/trust.py", "return self.sent_at + self.ttl_s - margin_s(self.ttl_s)", "return self.expires_at")],
        f"{MODEL}/test_rules.py::test_one_missed_keepalive_is_survived",
        f"{SIMULATION}/test_trust.py::test_no_handler_outlives_its_lease",
    ),
    _mutant(
        "failed-keepalive-renews",
        "a KeepAlive that fails changes nothing in the trust",
        [
            (
                "store/etcd/leases.py",
                "        pause = RETRY_S if kept.trust.holds(now) else SLOW_RETRY_S\n",
                "        kept.trust = Trust(now, kept.trust.ttl_s)\n        pause = RETRY_S\n",
            )
        ],
        f"{SIMULATION}/test_trust.py::test_no_handler_outlives_its_lease",
        f"{E2E}/test_ownership.py::test_a_worker_cut_off_from_etcd_stops_its_handler_before_the_claim_expires",
    ),
    _mutant(
        "late-answer-for-the-next",
        "an answer counts for the KeepAlive that it answers: a stream with unread answers is thrown away",
        [
            ("store/etcd/keepalive.py", "            if leads and", "            if (leads or not complete) and"),
        ],
        f"{ETCD}/test_leases.py::test_late_answers_do_not_stretch_trust[grpc]",
    ),
    _mutant(
        "lost-lease-untold",
        "a lease that the server says is gone is told as lost",
        [("store/etcd/leases.py", "        kept.on_lost(kept.lease)\n", "")],
        f"{ETCD}/test_leases.py::test_a_revoked_lease_is_lost_once_and_forgotten[grpc]",
    ),
    _mutant(
        "end-of-trust-unnoticed",
        "the control loop stops an attempt whose trust has ended",
        [("worker/attempt.py", "            if now < until:\n", "            if now < until or self.cause is None:\n")],
        f"{WORKER}/test_control.py::test_an_attempt_is_stopped_when_its_trust_ends_and_killed_in_the_margin",
        f"{SIMULATION}/test_trust.py::test_no_handler_outlives_its_lease",
    ),
    _mutant(
        "kill-counts-from-notice",
        "the time to stop counts from the end of trust, not from when that was noticed",
        [
            (
                "worker/attempt.py",
                "min(now, self._trusted_until) + LOST_GRACE_S",
                "now + LOST_GRACE_S",
            )
        ],
        f"{WORKER}/test_control.py::test_a_worker_that_was_held_up_kills_at_once",
    ),
    _mutant(
        "watchdog-off",
        "handlers of a worker that is stopped are killed when its trust ends",
        [
            (
                "worker/execute/forkserver_main.py",
                "for key in self._watchdog.expired(boottime()):",
                "for key in self._watchdog.expired(float('-inf')):",
            )
        ],
        f"{EXECUTE}/test_worker_death.py::test_stopped_worker[stubborn]",
        f"{E2E}/test_faults.py::test_a_paused_worker_can_change_nothing",
    ),
    _mutant(
        "lost-unset-async",
        "ctx.lost tells a coroutine that its claim is lost",
        [("worker/context.py", "return _event(asyncio.Event(), self._is_lost())", "return asyncio.Event()")],
        f"{EXECUTE}/test_async_engine.py::test_causes_and_what_the_handler_sees",
    ),
    _mutant(
        "lost-unset-thread",
        "ctx.lost tells a function that its claim is lost",
        [
            (
                "worker/context.py",
                "        if self._is_lost():\n            event.set()\n",
                "",
            )
        ],
        f"{EXECUTE}/test_thread_engine.py::test_asked_to_stop",
        f"{EXECUTE}/test_thread_engine.py::test_a_zombie_is_refused_and_told",
    ),
    _mutant(
        "refusal-unnoticed",
        "a write that the fence refuses tells the handler that its claim is lost",
        [
            (
                "worker/context.py",
                "return self._refused or self._link.cause is StopCause.LOST",
                "return self._link.cause is StopCause.LOST",
            )
        ],
        f"{WORKER}/test_refusal.py::test_a_refused_write_sets_lost_though_nobody_told_the_worker",
    ),
    _mutant(
        "claims-not-verified",
        "a worker reads its own claims: a lease that lives says nothing about the claim on it",
        [("worker/direct.py", "if one.assignment.job_id not in shown:", "if one.assignment.job_id in stopped:")],
        f"{E2E}/test_ownership.py::test_a_claim_that_became_anothers_stops_the_handler",
    ),
)

_REAP = (
    _mutant(
        "reap-by-existence",
        "a row is safe only while its own claim is there",
        [
            (
                "model/reap.py",
                "if claims.get(str(row.id)) != (row.claim_revision, row.lease):",
                "if str(row.id) not in claims:",
            )
        ],
        f"{MODEL}/test_rules.py::test_reaping_is_by_identity",
        f"{COORDINATOR}/test_reap.py::test_a_sweep_reaps_what_has_lost_its_own_claim_and_nothing_else",
        f"{E2E}/test_ownership.py::test_a_job_is_taken_over_though_a_foreign_claim_stands_in_its_place",
    ),
    _mutant(
        "reap-by-revision",
        "the lease belongs to a claim's identity: revisions come again after etcd was lost",
        [
            (
                "model/reap.py",
                "claims.get(str(row.id)) != (row.claim_revision, row.lease)",
                "claims.get(str(row.id), (0,))[0] != row.claim_revision",
            )
        ],
        f"{MODEL}/test_rules.py::test_reaping_is_by_identity",
        f"{COORDINATOR}/test_reap.py::test_the_same_revision_on_another_lease_is_another_claim",
    ),
    _mutant(
        "reap-claims-first",
        "rows are read before the claims with which they are compared",
        [
            (
                "coordinator/reap.py",
                "reaped = str(FIRST_ID), 0\n",
                "reaped = str(FIRST_ID), 0\n        claims = await self._claims()\n",
            ),
            (
                "coordinator/reap.py",
                "reaped += await self._judge(rows)\n",
                "reaped += await self._judge(rows, claims)\n",
            ),
            (
                "coordinator/reap.py",
                "rows: Sequence[Row]) -> int:",
                "rows: Sequence[Row], claims: object = None) -> int:",
            ),
            (
                "coordinator/reap.py",
                "        claims = await self._claims()\n        #",
                "        claims = claims or await self._claims()\n        #",
            ),
        ],
        f"{COORDINATOR}/test_ownership.py::test_an_attempt_that_starts_during_a_sweep_is_not_reaped",
    ),
    _mutant(
        "sweep-off",
        "the sweep finds what no watch has told",
        [("coordinator/reap.py", "                await self.sweep()\n", "                pass\n")],
        f"{COORDINATOR}/test_ownership.py::test_a_claim_that_vanished_while_nobody_led_is_noticed",
    ),
    _control(
        "watch-off",
        "the watch on claims is the quicker way of noticing: the sweep alone suffices",
        [
            (
                "coordinator/reap.py",
                "        self._vanished[job_id] = None\n        self._some.set()\n",
                "",
            )
        ],
        f"{COORDINATOR}/test_ownership.py::test_a_claim_that_vanished_while_nobody_led_is_noticed",
        f"{COORDINATOR}/test_leading.py::test_keys_that_nobody_can_read_do_not_end_a_term",
        f"{E2E}/test_faults.py::test_a_killed_workers_job_runs_elsewhere",
    ),
    _mutant(
        "crash-uncounted",
        "a lost attempt counts as a crash, and a poison job ends",
        [("coordinator/reap.py", "next_of_lost(row), error=error, is_crash=True)", "next_of_lost(row), error=error)")],
        f"{COORDINATOR}/test_reap.py::test_a_poison_job_ends_after_its_crashes",
    ),
    _mutant(
        "taken-is-a-crash",
        "a claim taken from a worker that lives is no crash",
        [("coordinator/reap.py", "taken = await self._taken(verdict.lost)", "taken: set[Executing] = set()")],
        f"{COORDINATOR}/test_reap.py::test_a_claim_taken_from_a_living_worker_is_no_crash",
        f"{E2E}/test_faults.py::test_a_claim_taken_with_etcds_own_tools_is_no_crash[deleting the claim]",
    ),
    _mutant(
        "any-session-proves-life",
        "only a session older than the claim shows that its worker lived when the claim vanished",
        [("coordinator/reap.py", "if key.create_revision < row.claim_revision and was_alive(", "if was_alive(")],
        f"{COORDINATOR}/test_reap.py::test_a_session_younger_than_the_claim_proves_nothing",
    ),
    _mutant(
        "old-session-proves-life",
        "a session that was not renewed for two thirds of the TTL is a dead worker's",
        [
            (
                "model/trust.py",
                "session_age_s * RENEWALS_PER_TTL < ttl_s * (RENEWALS_PER_TTL - 1)",
                "session_age_s < 1e9",
            )
        ],
        f"{MODEL}/test_rules.py::test_a_fresh_session_tells_a_taken_claim_from_a_crash",
        f"{E2E}/test_faults.py::test_a_killed_workers_job_runs_elsewhere",
    ),
    _mutant(
        "cancel-not-repeated",
        "the sweep reminds workers of cancels that they have not seen",
        [("coordinator/reap.py", "        await self._reminder.remind(canceled)\n", "")],
        f"{COORDINATOR}/test_reap.py::test_the_sweep_reminds_a_worker_of_a_cancel_once_per_session",
    ),
    _mutant(
        "poison-never-ends",
        "after max_crashes lost attempts a job fails",
        [("model/retry.py", "    if crashes >= max_crashes:\n", "    if crashes > max_crashes:\n")],
        f"{MODEL}/test_rules.py::test_a_poison_job_ends",
        f"{COORDINATOR}/test_reap.py::test_a_poison_job_ends_after_its_crashes",
    ),
    _mutant(
        "brake-off",
        "when many workers vanish at once dispatch is held back",
        [("coordinator/reap.py", "if self._brake(seconds):", "if not seconds:")],
        f"{COORDINATOR}/test_reap.py::test_many_workers_gone_at_once_put_the_brake_on",
    ),
    _mutant(
        "brake-unheeded",
        "the dispatcher heeds the brake",
        [
            (
                "coordinator/dispatch.py",
                "progressed = now >= self._braked_until and await self._cycle()",
                "progressed = await self._cycle()",
            )
        ],
        f"{COORDINATOR}/test_dispatch.py::test_a_brake_holds_offers_back",
    ),
    _mutant(
        "timeout-unjudged",
        "an attempt past its timeout ends whatever its claim says",
        [("model/reap.py", "        elif row.timed_out:\n", "        elif row.timed_out and not claims:\n")],
        f"{COORDINATOR}/test_reap.py::test_an_attempt_past_its_timeout_ends_whatever_its_claim_says",
    ),
    _mutant(
        "timeouts-before-reports",
        "after an outage what finished in time is reported before timeouts are judged",
        [
            (
                "coordinator/reap.py",
                "            verdict = replace(verdict, timed_out=(), unheeded=())\n",
                "            pass\n",
            )
        ],
        f"{COORDINATOR}/test_reap.py::test_workers_may_report_before_timeouts_are_judged",
    ),
    _mutant(
        "orphans-kept",
        "a claim that nobody owns for a while is given up",
        [("coordinator/reap.py", "if now - since >= orphaned_s]", "if False]")],
        f"{COORDINATOR}/test_reap.py::test_a_claim_that_nobody_owns_for_a_while_is_given_up",
    ),
    _mutant(
        "orphans-given-up-by-the-deposed",
        "a deposed leader gives up no claims",
        [("coordinator/reap.py", "releases, guard=self._term_guard)", "releases)")],
        f"{COORDINATOR}/test_reap.py::test_a_deposed_leader_gives_up_no_claims",
    ),
    _mutant(
        "started-orphan-revoked",
        "the slots of a claim that was started stay until its worker stops",
        [("coordinator/reap.py", "if is_dropped and one not in started:", "if is_dropped:")],
        f"{COORDINATOR}/test_reap.py::test_a_claim_that_nobody_owns_for_a_while_is_given_up",
    ),
)

_LEAD = (
    _mutant(
        "offers-unguarded",
        "a deposed leader's transactions fail: each compares the leader key with the term",
        [
            (
                "coordinator/dispatch.py",
                "Txn((self._term.guard(),), tuple(put for put, _ in puts))",
                "Txn((), tuple(put for put, _ in puts))",
            )
        ],
        f"{COORDINATOR}/test_dispatch.py::test_a_deposed_leader_offers_nothing",
    ),
    _mutant(
        "reaping-unguarded",
        "what the reaper writes to Postgres asserts the term in the same transaction",
        [("coordinator/reap.py", "PAGE_JOBS], guard=self._guard)", "PAGE_JOBS])")],
        f"{COORDINATOR}/test_reap.py::test_a_leader_whose_term_is_over_reaps_nothing",
    ),
    _mutant(
        "older-term-recorded",
        "a term is recorded only after an older one",
        [
            (
                f"{QUERIES}/take_leadership.sql",
                "WHERE c.leader_term < %(term)s OR j.etcd_lost",
                "WHERE true OR j.etcd_lost",
            )
        ],
        f"{POSTGRES}/test_leadership.py::test_terms_only_grow",
    ),
    _mutant(
        "leader-trusts-for-ever",
        "a leader that cannot prove its lease stops leading before the lease can expire",
        [
            ("store/etcd/election.py", "            if left_s <= 0:\n", "            if left_s <= -3600:\n"),
            (
                "store/etcd/election.py",
                "await self._clock.sleep(min(left_s, LOOK_S))",
                "await self._clock.sleep(max(min(left_s, LOOK_S), 0.05))",
            ),
        ],
        f"{ETCD}/test_election.py::test_a_leader_cut_off_gives_up_before_another_leads[grpc]",
    ),
)

_STORES = (
    _mutant(
        "epoch-kept-after-etcd-lost",
        "the epoch rises when etcd is not the one that it was",
        [
            (
                f"{QUERIES}/take_leadership.sql",
                "(j.etcd_lost OR j.postgres_restored)::integer",
                "(j.postgres_restored)::integer",
            )
        ],
        f"{POSTGRES}/test_leadership.py::test_another_etcd_or_one_set_back_raises_the_epoch_and_freezes_claims",
        f"{E2E}/test_faults.py::test_etcd_may_be_lost_whole",
    ),
    _mutant(
        "epoch-kept-on-a-new-timeline",
        "the epoch rises on another timeline of Postgres",
        [(f"{QUERIES}/take_leadership.sql", "(j.etcd_lost OR j.postgres_restored)::integer", "(j.etcd_lost)::integer")],
        f"{POSTGRES}/test_leadership.py::test_another_timeline_raises_the_epoch_and_until_then_nothing_starts",
    ),
    _mutant(
        "claims-at-once-after-etcd-lost",
        "after etcd was lost nothing is offered for the longest TTL in use",
        [("coordinator/leader.py", "        dispatcher.brake(frozen_s)\n", "")],
        f"{COORDINATOR}/test_ownership.py::test_after_etcd_was_lost_nothing_is_offered_for_the_longest_ttl",
    ),
    _mutant(
        "epoch-raised-by-one",
        "the epoch rises by every timeline that was left behind",
        [
            (
                f"{QUERIES}/take_leadership.sql",
                "greatest(1, j.postgres_timeline - coalesce(c.postgres_timeline, j.postgres_timeline))",
                "1",
            )
        ],
        f"{POSTGRES}/test_leadership.py::test_each_timeline_left_behind_raises_the_epoch",
    ),
    _mutant(
        "lost-lane-not-made-again",
        "a lane that Postgres lost is made again from its jobs",
        [
            (
                "coordinator/dispatch.py",
                "            await self._lanes.restore([row.id for row in rows if row.pool is None])\n",
                "",
            )
        ],
        f"{COORDINATOR}/test_dispatch.py::test_a_lane_that_postgres_lost_is_made_again",
    ),
    _mutant(
        "turns-not-heeded",
        "nothing is given away that is less urgent than the first job of lanes that were not looked at",
        [("coordinator/dispatch.py", "            unread=look.unread,\n", "")],
        f"{COORDINATOR}/test_dispatch.py::test_what_is_less_urgent_waits_for_lanes_that_were_not_looked_at",
    ),
    _mutant(
        "turns-kept",
        "a lane that gave something waits until others had their turn",
        [("coordinator/turns.py", "elif lane not in waiting or self._queue_of[lane] != rank:\n", "elif False:\n")],
        f"{COORDINATOR}/test_turns.py::test_the_most_urgent_first_and_turns_among_equals",
        f"{COORDINATOR}/test_dispatch.py::test_with_more_lanes_than_a_round_looks_at_each_has_its_turn",
    ),
    _mutant(
        "turns-no-way-made",
        "where lanes turn out to be empty the next ones are looked at, at once",
        [("coordinator/dispatch.py", " or (made_way and look.unread is not None)", "")],
        f"{COORDINATOR}/test_dispatch.py::test_lanes_that_turn_out_to_be_empty_make_way_at_once",
    ),
    _mutant(
        "strays-kept-after-etcd-lost",
        "claims that a snapshot brought back block nobody",
        [("coordinator/leader.py", "            await reaper.drop_strays()\n", "            pass\n")],
        f"{COORDINATOR}/test_ownership.py::test_after_etcd_was_lost_claims_that_no_row_owns_are_dropped",
    ),
    _mutant(
        "watch-dead-after-compaction",
        "a mirror lists again when the history that it missed is compacted",
        [
            (
                "store/etcd/view.py",
                "            except Compacted as exc:\n",
                "            except Compacted as exc:\n                return\n",
            )
        ],
        f"{ETCD}/test_watch.py::test_a_view_mirrors_through_cuts_compaction_and_deletion[grpc]",
    ),
    _mutant(
        "watch-resumes-from-now",
        "a watch that breaks resumes from where it broke",
        [("store/etcd/watching.py", "start_revision=self._next, prev_kv", "start_revision=0, prev_kv")],
        f"{ETCD}/test_watch.py::test_a_watch_from_now_misses_nothing_after_a_cut[grpc]",
        f"{ETCD}/test_watch.py::test_it_resumes_over_cuts_without_gap_or_repeat[grpc]",
    ),
    _mutant(
        "erased-store-unnoticed",
        "a watch notices that the store went back in time",
        [("store/etcd/watching.py", "if answer.header.revision < self._next - 1:", "if answer.header.revision < 0:")],
        f"{ETCD}/test_watch.py::test_a_store_that_was_erased_is_noticed[grpc-False]",
    ),
)

_SUBMIT = (
    _mutant(
        "key-ignored",
        "an idempotency key stands for one job",
        [("store/postgres/submit.py", "    if keyed:\n", "    if not keyed and fence == 0:\n")],
        f"{POSTGRES}/test_submit.py::test_one_key_from_many_connections_makes_one_job",
        f"{COORDINATOR}/test_steps.py::test_one_key_is_one_job_however_many_submit_it_where",
        f"{COORDINATOR}/test_steps.py::test_a_repeated_batch_answers_with_the_first_jobs",
    ),
    _mutant(
        "request-uncompared",
        "a key with another request is refused",
        [("coordinator/submit.py", "if earlier.request_hash != job.request_hash:", "if not earlier:")],
        f"{COORDINATOR}/test_steps.py::test_a_key_with_another_request_is_refused_and_its_neighbours_are_not",
    ),
    _mutant(
        "parents-unlocked",
        "parents are held in place while dependencies on them are written",
        [("store/postgres/submit.py", "    if outside:\n", "    if outside is None:\n")],
        f"{POSTGRES}/test_held_rows.py::test_an_edge_waits_for_a_parent_that_is_about_to_end",
    ),
    _mutant(
        "park-unfenced",
        "a park is written under the fence of the attempt",
        [
            (
                f"{QUERIES}/park_attempts.sql",
                "ON j.id = r.id AND j.fence = r.fence\n",
                "ON j.id = r.id\n",
            ),
            (f"{QUERIES}/park_attempts.sql", "v.id AND j.fence = v.fence AND", "v.id AND"),
        ],
        f"{POSTGRES}/test_parking.py::test_another_fence_parks_nothing",
    ),
    _mutant(
        "park-on-anything",
        "a job parks on children of its own only",
        [("coordinator/park.py", "    if not parked:\n", "    if parked:\n")],
        f"{COORDINATOR}/test_parking.py::test_it_may_wait_for_its_own_children_only",
    ),
    _mutant(
        "park-counts-old-edges",
        "only what the last parking waits for counts",
        [
            (
                f"{QUERIES}/settle_parents.sql",
                " AND j.parked_attempt IS NOT DISTINCT FROM c.parked_attempt\n",
                "\n",
            )
        ],
        f"{COORDINATOR}/test_parking.py::test_parking_again_forgets_what_was_waited_for_before",
    ),
    _mutant(
        "children-unlocked-by-park",
        "children are held in place while their parent parks on them",
        [("coordinator/park.py", '{"ids": sorted(set(children))}', '{"ids": []}')],
        f"{POSTGRES}/test_held_rows.py::test_a_park_waits_for_a_child_that_is_about_to_end",
    ),
    _mutant(
        "dependants-unsettled",
        "dependants wake in the transaction that ends their parent",
        [
            (
                "coordinator/finish.py",
                'Statement("settle_parents", {"ids": columns["ids"]})',
                'Statement("settle_parents", {"ids": []})',
            )
        ],
        f"{COORDINATOR}/test_steps.py::test_the_end_of_a_parent_wakes_or_cancels_its_descendants",
    ),
)

_DRAIN = (
    _mutant(
        "drain-hands-nothing-back",
        "what outlives the drain is handed back",
        [("worker/control.py", "            self._stop(attempt, StopCause.RELEASED)\n", "            pass\n")],
        f"{E2E}/test_faults.py::test_what_outlives_the_drain_is_handed_back",
    ),
    _mutant(
        "drain-spends-the-budget",
        "an attempt that is handed back counts as no error",
        [("worker/execute/outcome.py", "StopCause.RELEASED: Outcome.RELEASED,", "StopCause.RELEASED: Outcome.FAILED,")],
        f"{EXECUTE}/test_async_engine.py::test_causes_and_what_the_handler_sees",
        f"{E2E}/test_faults.py::test_what_outlives_the_drain_is_handed_back",
    ),
    _mutant(
        "drain-takes-more",
        "who drains takes no more",
        [("worker/direct.py", "        self._draining = True\n", "")],
        f"{COORDINATOR}/test_direct_link.py::test_who_drains_claims_nothing",
    ),
)

_DECISIONS = (
    _mutant(
        "room-ignored",
        "a worker is offered no more than it has room for",
        [("model/dispatch.py", "            if room == 0:\n", "            if room == -9:\n")],
        f"{MODEL}/test_rules.py::test_dispatch",
        f"{SIMULATION}/test_dispatch.py::test_any_order_of_events",
    ),
    _mutant(
        "pool-by-prefix",
        "a route lies in a pool by whole segments",
        [("model/routes.py", 'route.startswith(pool + "/")', "route.startswith(pool)")],
        f"{MODEL}/test_rules.py::test_pools_match_by_whole_segments[pool-a-pool-abc-False]",
        f"{COORDINATOR}/test_dispatch.py::test_lanes_that_nobody_serves_are_passed_over",
    ),
    _mutant(
        "answered-offer-settled-at-once",
        "what was offered counts as in flight until its claim can have been seen",
        [
            (
                "coordinator/flight.py",
                "                self._settling[job] = now + SETTLE_S\n",
                "",
            )
        ],
        f"{COORDINATOR}/test_dispatch.py::test_the_picture_counts_offers_and_claims_once",
    ),
    _mutant(
        "offered-twice",
        "a job that is offered is not offered to another",
        [("coordinator/flight.py", "return job in self._offered or job in self.claims", "return job in self.claims")],
        f"{SIMULATION}/test_dispatch.py::test_a_job_that_is_offered_is_not_offered_again",
    ),
    _mutant(
        "claims-uncounted",
        "a worker's room counts the claims that it holds",
        [
            (
                "coordinator/flight.py",
                "        _one_less(self._load, held.worker)\n",
                "",
            )
        ],
        f"{COORDINATOR}/test_dispatch.py::test_the_picture_counts_offers_and_claims_once",
    ),
    _mutant(
        "slots-kept-on-the-lease",
        "a claim is released with its slots",
        [("coordinator/announce.py", "one.lease, one.slots, done", "one.lease, (), done")],
        f"{COORDINATOR}/test_limits.py::test_a_slot_goes_with_its_claim_and_lets_the_next_start",
        f"{COORDINATOR}/test_limits.py::test_a_repeated_report_releases_the_slot_with_the_claim",
    ),
    _mutant(
        "offered-slots-uncounted",
        "slots that were given away with offers count as taken",
        [
            (
                "coordinator/flight.py",
                "        self.slots[limit][number] = job\n        return True\n",
                "        return True\n",
            )
        ],
        f"{COORDINATOR}/test_limits.py::test_no_more_than_the_limit_is_offered_and_each_has_a_slot_of_its_own",
    ),
    _mutant(
        "lowered-limit-forgets-its-holders",
        "slots above a lowered limit count",
        [
            (
                "coordinator/allowance.py",
                "limit.concurrent - len(self._flight.slots.get(name, ()))",
                "limit.concurrent",
            ),
            ("model/limits.py", "left = most - len(taken)", "left = most"),
        ],
        f"{COORDINATOR}/test_limits.py::test_changing_a_limit_acts_at_once",
    ),
    _mutant(
        "tokens-without-term",
        "only the leader of the term takes tokens",
        [
            (
                "coordinator/allowance.py",
                "_, rows = await self._database.transaction([self._guard, Statement(",
                "[rows] = await self._database.transaction([Statement(",
            )
        ],
        f"{COORDINATOR}/test_limits.py::test_a_deposed_leader_takes_no_tokens",
    ),
    _mutant(
        "ahead-of-the-unread",
        "nothing is given away ahead of what was not read",
        [("model/dispatch.py", "if unread is not None and candidate.rank > unread:", "if False:")],
        "tests/model/test_fairness.py::test_nothing_goes_ahead_of_what_was_not_read",
    ),
    _mutant(
        "namespaces-without-turns",
        "at equal priority namespaces take turns by what they have in flight",
        [
            (
                "model/dispatch.py",
                "heapq.heappush(queue, (head.rank, in_flight[window.namespace] / weight, head.order, source))",
                "heapq.heappush(queue, (head.rank, 0.0 * weight, head.order, source))",
            )
        ],
        "tests/model/test_fairness.py::test_a_backlog_does_not_starve_a_namespace_with_few",
        f"{COORDINATOR}/test_limits.py::test_namespaces_take_turns_by_weight",
    ),
    _mutant(
        "pause-unheeded",
        "nothing of what is paused is read",
        [("coordinator/allowance.py", "if self.rules.pause_of(lane) is not None:", "if False:")],
        f"{COORDINATOR}/test_limits.py::test_lanes_that_cannot_run_now_are_not_read",
    ),
    _mutant(
        "brake-by-every-wave",
        "the brake counts from the first wave of a mass loss",
        [
            (
                "coordinator/dispatch.py",
                "        is_another = now >= self._braked_until\n",
                "        is_another = True\n",
            )
        ],
        f"{COORDINATOR}/test_dispatch.py::test_the_brake_counts_from_the_first_wave",
    ),
    _mutant(
        "errors-over-budget",
        "a job fails with the last error that its policy allows",
        [("model/retry.py", "    if errors >= policy.max_attempts:\n", "    if errors > policy.max_attempts:\n")],
        f"{MODEL}/test_retry.py::test_an_error_is_judged_in_order",
        f"{SIMULATION}/test_lives.py::test_any_life",
    ),
    _mutant(
        "backoff-uncapped",
        "a backoff keeps its bound",
        [
            (
                "model/retry.py",
                "min(self.initial_backoff_s * self._growth(errors), self.max_backoff_s)",
                "self.initial_backoff_s * self._growth(errors)",
            )
        ],
        f"{MODEL}/test_retry.py::test_a_backoff_keeps_its_bounds",
    ),
    _mutant(
        "retried-twice",
        "a job has one retry",
        [
            (f"{QUERIES}/retry_jobs.sql", "'canceled') AND h.retried_by IS NULL\n", "'canceled')\n"),
            (f"{QUERIES}/retry_jobs.sql", "l.id = h.id AND h.retried_by IS NULL\n", "l.id = h.id\n"),
            (
                "coordinator/retry.py",
                "if row.retried_by is None and row.state in RETRIABLE:",
                "if row.state in RETRIABLE:",
            ),
        ],
        f"{COORDINATOR}/test_retry.py::test_a_job_has_one_retry_however_many_ask_at_once",
    ),
    _mutant(
        "retry-runs-before-its-parents",
        "a retried job waits for the retries of what it waited for",
        [
            (
                f"{QUERIES}/retry_jobs.sql",
                "d.child_id = h.id AND d.parked_attempt IS NULL) AS waits",
                "d.child_id = h.id AND false) AS waits",
            )
        ],
        f"{COORDINATOR}/test_retry.py::test_a_retried_dependant_waits_for_the_retry_of_its_parent",
    ),
    _mutant(
        "started-too-late",
        "a start past the time of its job is refused",
        [
            (
                f"{QUERIES}/start_attempts.sql",
                "  AND (j.attempt > 0 OR j.start_by IS NULL OR j.start_by > now())"
                " AND (j.deadline IS NULL OR j.deadline > now())\n",
                "",
            )
        ],
        f"{COORDINATOR}/test_deadlines.py::test_a_start_after_the_time_is_refused_before_any_sweep[spec0]",
        f"{COORDINATOR}/test_deadlines.py::test_a_start_after_the_time_is_refused_before_any_sweep[spec1]",
    ),
    _mutant(
        "expired-too-early",
        "only a job whose time is up is ended for that",
        [
            (
                f"{QUERIES}/expire_idle.sql",
                "      AND ((attempt = 0 AND start_by <= now()) OR deadline <= now())\n",
                "",
            )
        ],
        f"{POSTGRES}/test_transitions.py::test_a_statement_makes_only_its_moves[expire_idle:too-early-from-ready]",
        f"{POSTGRES}/test_transitions.py::test_a_statement_makes_only_its_moves[expire_idle:too-early-from-restarting]",
    ),
    _mutant(
        "retried-past-the-deadline",
        "a job past its deadline does not come back",
        [("model/retry.py", "    if past_deadline and then.state", "    if then.delay_s < 0 and then.state")],
        f"{COORDINATOR}/test_deadlines.py::test_past_its_deadline_a_job_does_not_come_back[failed]",
        f"{MODEL}/test_retry.py::test_after_its_deadline_a_job_ends_as_it_did_or_has_failed[ready-True]",
    ),
    _mutant(
        "cancel-unheeded",
        "an attempt whose worker does not heed a cancel is ended",
        [("model/reap.py", "row.has_had(cancel_grace_s):", "row.has_had(cancel_grace_s + 1e9):")],
        f"{COORDINATOR}/test_reap.py::test_a_cancel_that_its_worker_does_not_heed_ends_the_attempt_after_the_grace",
    ),
    _mutant(
        "cancel-forgotten-by-a-crash",
        "a job that was to be canceled does not come back when its worker is lost",
        [
            (
                "model/retry.py",
                '    if cancel_requested:\n        return Next(JobState.CANCELED, reason="canceled; its',
                '    if crashes < 0:\n        return Next(JobState.CANCELED, reason="canceled; its',
            )
        ],
        f"{SIMULATION}/test_lives.py::test_any_life",
    ),
)

_WORKFLOW = (
    _mutant(
        "child-of-a-canceled-workflow",
        "no attempt submits children into a canceled workflow",
        [
            (
                "store/postgres/submit.py",
                "        if child.workflow_id is not None:\n",
                "        if child.workflow_id is not None and fence < 0:\n",
            )
        ],
        f"{POSTGRES}/test_workflows.py::test_no_child_is_written_into_a_canceled_workflow",
        f"{COORDINATOR}/test_workflows.py::test_an_attempt_adds_nothing_to_a_canceled_workflow",
    ),
    _mutant(
        "cancel-overtakes-children",
        "a cancel of a workflow waits for children that are being written",
        [
            (
                "store/postgres/migrations/versions/0001_initial.sql",
                "w.canceled_at IS NULL FOR SHARE;",
                "w.canceled_at IS NULL;",
            )
        ],
        f"{POSTGRES}/test_workflows.py::test_a_cancel_sees_children_that_were_being_written",
    ),
    _mutant(
        "late-ends-untold",
        "who watches a workflow is told of ends that are committed out of order",
        [("coordinator/following.py", "        since -= timedelta(seconds=OVERLAP_S)\n", "")],
        f"{COORDINATOR}/test_workflows.py::test_an_end_that_is_committed_late_is_told_of",
    ),
)

_HELD = f"{COORDINATOR}/test_unique.py::test_a_job_that_is_held_runs_by_its_trigger_and_no_sooner"
_UNIQUE = (
    _mutant(
        "replaced-not-waited-for",
        "a job that replaces an executing one is held back until that has ended",
        [
            (
                "store/postgres/migrations/versions/0001_initial.sql",
                "    IF FOUND THEN\n        UPDATE tenure.job j\n        SET held",
                "    IF false THEN\n        UPDATE tenure.job j\n        SET held",
            )
        ],
        f"{COORDINATOR}/test_unique.py::test_an_executing_job_is_asked_to_stop_and_the_new_one_held_until_it_has_ended",
        f"{COORDINATOR}/test_unique.py::test_whoever_has_the_key_is_held_until_the_replaced_one_is_gone",
    ),
    _mutant(
        "replaced-locked-last",
        "a replacement locks what was replaced before together with the job that is held behind it, as an end does",
        [(f"{QUERIES}/replace_holders.sql", "    WHERE r.replaced_by IS NOT NULL\n", "    WHERE false\n")],
        f"{POSTGRES}/test_held_rows.py::test_a_replacement_and_the_end_of_the_job_that_was_replaced_before_have_one_order",
    ),
    _mutant(
        "trigger-overtakes-held-back",
        "a trigger that is met starts no job that is held back",
        [
            (
                f"{QUERIES}/settle_parents.sql",
                "verdict = 'run' AND held_back IS NULL AS starts",
                "verdict = 'run' AS starts",
            )
        ],
        f"{_HELD}[2-ends0-any_completed]",
    ),
    _mutant(
        "held-back-judged-again",
        "what has been decided about a job that is held back is not decided again",
        [(f"{QUERIES}/settle_parents.sql", " AND j.held_back IS NOT TRUE ORDER", " ORDER")],
        f"{_HELD}[2-ends1-any_completed]",
    ),
    _mutant(
        "held-back-swept-as-broken",
        "the sweep takes no job that is held back for one whose trigger can no longer be met",
        [(f"{QUERIES}/unsettled_parents.sql", " AND j.held_back IS NOT TRUE", "")],
        f"{COORDINATOR}/test_unique.py::test_a_job_that_is_held_waits_though_what_it_depends_on_has_ended[any_completed]",
    ),
    _mutant(
        "retry-behind-a-taken-key",
        "no job is retried that depends on one whose unique key is taken",
        [(f"{QUERIES}/retry_jobs.sql", " OR EXISTS (SELECT FROM contested o WHERE o.id = p.id))", ")")],
        f"{COORDINATOR}/test_unique.py::test_a_dependant_is_not_retried_where_its_parents_key_is_taken",
    ),
    _mutant(
        "stream-asks-for-more",
        "what settings make of a job is no part of the request, also when part of a group is known",
        [
            (
                "coordinator/group_commit.py",
                "rest = [spec for spec, job in zip(",
                "rest = [job.spec for spec, job in zip(",
            )
        ],
        f"{COORDINATOR}/test_kinds.py::test_what_is_sent_again_with_more_is_known_by_what_was_asked",
    ),
)

MUTANTS: tuple[Mutant, ...] = (
    *_CLAIM,
    *_ROOM,
    *_START,
    *_FENCE,
    *_TRUST,
    *_REAP,
    *_LEAD,
    *_STORES,
    *_SUBMIT,
    *_DRAIN,
    *_DECISIONS,
    *_SCHEDULE,
    *_WORKFLOW,
    *_UNIQUE,
)
