"""The calls of RetentionService."""

from __future__ import annotations

from tenure.client.fields import number_of, text
from tenure.client.link import Link
from tenure.client.retention import (
    ExpiredFiles,
    ExpiredJobs,
    LegalHold,
    RetentionPolicy,
    added_up,
    expired_files_from_wire,
    hold_from_wire,
    policy_from_wire,
    policy_to_wire,
)
from tenure.model.states import JobState
from tenure.v1 import retention_service_pb2 as pb
from tenure.v1 import wire


class RetentionCalls:
    """Say how long jobs are kept after their end, and what is not to be removed."""

    _link: Link

    async def put_retention(
        self,
        *,
        namespace: str | None = None,
        kind: str | None = None,
        state: JobState | str | None = None,
        keep_s: int | None = None,
        archive: bool = False,
        archive_keep_s: int | None = None,
        storage_class: str | None = None,
    ) -> RetentionPolicy:
        """Set for how long after their end jobs are kept; what has expired begins to be removed within a minute.

        None in the place of a namespace, a kind or a final state is any; of several policies that cover a job the most
        specific one decides. ``keep_s`` None: for ever. So with ``archive_keep_s``, for files of the archive with such
        jobs; ``storage_class`` is theirs in S3.

        Raises:
            InvalidInput: with every bad field, such as ``archive`` where there is none.
        """
        policy = policy_to_wire(namespace, kind, state, keep_s, archive, archive_keep_s, storage_class)
        answer: pb.PutRetentionPolicyResponse = await self._link.unary(
            lambda to: to.retention.PutRetentionPolicy, pb.PutRetentionPolicyRequest(policy=policy)
        )
        return policy_from_wire(answer.policy)

    async def retention(
        self,
        *,
        namespace: str | None = None,
        kind: str | None = None,
        state: JobState | str | None = None,
        deciding: bool = False,
    ) -> RetentionPolicy:
        """Return the policy that was put for just these; ``deciding``: the one that decides about such jobs.

        Raises:
            NotFound: there is none, so that it keeps them for ever, or another one decides.
        """
        answer: pb.GetRetentionPolicyResponse = await self._link.unary(
            lambda to: to.retention.GetRetentionPolicy,
            pb.GetRetentionPolicyRequest(
                namespace=namespace,
                kind=kind,
                state=number_of(wire.STATE_TO_PB, state, "state"),
                deciding=deciding,
            ),
        )
        return policy_from_wire(answer.policy)

    async def retentions(self) -> list[RetentionPolicy]:
        """Return all policies, by namespace, kind and state."""
        answer: pb.ListRetentionPoliciesResponse = await self._link.unary(
            lambda to: to.retention.ListRetentionPolicies, pb.ListRetentionPoliciesRequest()
        )
        return [policy_from_wire(policy) for policy in answer.policies]

    async def delete_retention(
        self, *, namespace: str | None = None, kind: str | None = None, state: JobState | str | None = None
    ) -> bool:
        """Forget a policy; False: there was none."""
        answer: pb.DeleteRetentionPolicyResponse = await self._link.unary(
            lambda to: to.retention.DeleteRetentionPolicy,
            pb.DeleteRetentionPolicyRequest(
                namespace=namespace, kind=kind, state=number_of(wire.STATE_TO_PB, state, "state")
            ),
        )
        return answer.deleted

    async def preview_retention(
        self, *, namespace: str | None = None, policy: RetentionPolicy | None = None
    ) -> list[ExpiredJobs]:
        """Count what would go now, in one namespace or in all; ``policy``: as if it were set, too.

        It looks through what can have expired, in as many calls as that takes: seconds for a million jobs.

        Raises:
            InvalidInput: with every bad field.
        """
        request = pb.PreviewRetentionRequest(namespace=namespace)
        if policy is not None:
            asked = policy_to_wire(policy.namespace, policy.kind, policy.state, policy.keep_s, policy.archive)
            request.policy.CopyFrom(asked)
        found: list[pb.ExpiredJobs] = []
        answer: pb.PreviewRetentionResponse
        async for answer in self._link.pages(lambda to: to.retention.PreviewRetention, request):
            found += answer.expired
        return added_up(found)

    async def preview_archive(
        self, *, namespace: str | None = None, policy: RetentionPolicy | None = None
    ) -> list[ExpiredFiles]:
        """Return which files of the archive would go now, by policy and namespace; as ``preview_retention``.

        Raises:
            InvalidInput: with the bad field. PermissionDenied: the namespace is not the caller's.
        """
        request = pb.PreviewRetentionRequest(namespace=namespace)
        if policy is not None:
            request.policy.CopyFrom(
                policy_to_wire(
                    policy.namespace,
                    policy.kind,
                    policy.state,
                    policy.keep_s,
                    policy.archive,
                    policy.archive_keep_s,
                    policy.storage_class,
                )
            )
        answer: pb.PreviewRetentionResponse = await self._link.unary(lambda to: to.retention.PreviewRetention, request)
        return [expired_files_from_wire(files) for files in answer.expired_files]

    async def put_hold(self, key: str, value: str, reason: str = "") -> LegalHold:
        """Keep all jobs with a label, in every namespace and whatever the policies say, until the hold is lifted.

        Once this returns nothing with the label is removed any more.

        Raises:
            InvalidInput: no job can have such a label.
        """
        answer: pb.PutLegalHoldResponse = await self._link.unary(
            lambda to: to.retention.PutLegalHold,
            pb.PutLegalHoldRequest(key=text(key, "key"), value=text(value, "value"), reason=text(reason, "reason")),
        )
        return hold_from_wire(answer.hold)

    async def holds(self) -> list[LegalHold]:
        """Return the legal holds, by label."""
        answer: pb.ListLegalHoldsResponse = await self._link.unary(
            lambda to: to.retention.ListLegalHolds, pb.ListLegalHoldsRequest()
        )
        return [hold_from_wire(hold) for hold in answer.holds]

    async def delete_hold(self, key: str, value: str) -> bool:
        """Lift a legal hold; False: there was none."""
        answer: pb.DeleteLegalHoldResponse = await self._link.unary(
            lambda to: to.retention.DeleteLegalHold,
            pb.DeleteLegalHoldRequest(key=text(key, "key"), value=text(value, "value")),
        )
        return answer.deleted
