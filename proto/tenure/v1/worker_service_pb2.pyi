import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tenure.v1 import job_pb2 as _job_pb2
from tenure.v1 import job_service_pb2 as _job_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_RECORDED: _ClassVar[Verdict]
    VERDICT_REPEATED: _ClassVar[Verdict]
    VERDICT_LOST: _ClassVar[Verdict]
    VERDICT_INVALID: _ClassVar[Verdict]
    VERDICT_LOCKED: _ClassVar[Verdict]
VERDICT_UNSPECIFIED: Verdict
VERDICT_RECORDED: Verdict
VERDICT_REPEATED: Verdict
VERDICT_LOST: Verdict
VERDICT_INVALID: Verdict
VERDICT_LOCKED: Verdict

class ClaimedJob(_message.Message):
    __slots__ = ("job_id", "attempt_seen", "lease", "claim_revision", "slots")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_SEEN_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    CLAIM_REVISION_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    attempt_seen: int
    lease: int
    claim_revision: int
    slots: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, job_id: _Optional[str] = ..., attempt_seen: _Optional[int] = ..., lease: _Optional[int] = ..., claim_revision: _Optional[int] = ..., slots: _Optional[_Iterable[str]] = ...) -> None: ...

class StartAttemptsRequest(_message.Message):
    __slots__ = ("worker", "claims")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    claims: _containers.RepeatedCompositeFieldContainer[ClaimedJob]
    def __init__(self, worker: _Optional[str] = ..., claims: _Optional[_Iterable[_Union[ClaimedJob, _Mapping]]] = ...) -> None: ...

class StartedAttempt(_message.Message):
    __slots__ = ("job_id", "attempt", "fence", "namespace", "kind", "route", "payload", "checkpoint", "timeout", "labels", "started_at", "parent_id", "parked_attempt", "attempt_token")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    PARKED_ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    attempt: int
    fence: int
    namespace: str
    kind: str
    route: str
    payload: str
    checkpoint: str
    timeout: _duration_pb2.Duration
    labels: _containers.ScalarMap[str, str]
    started_at: _timestamp_pb2.Timestamp
    parent_id: str
    parked_attempt: int
    attempt_token: str
    def __init__(self, job_id: _Optional[str] = ..., attempt: _Optional[int] = ..., fence: _Optional[int] = ..., namespace: _Optional[str] = ..., kind: _Optional[str] = ..., route: _Optional[str] = ..., payload: _Optional[str] = ..., checkpoint: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., parent_id: _Optional[str] = ..., parked_attempt: _Optional[int] = ..., attempt_token: _Optional[str] = ...) -> None: ...

class StartAttemptsResponse(_message.Message):
    __slots__ = ("attempts",)
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    attempts: _containers.RepeatedCompositeFieldContainer[StartedAttempt]
    def __init__(self, attempts: _Optional[_Iterable[_Union[StartedAttempt, _Mapping]]] = ...) -> None: ...

class AttemptReport(_message.Message):
    __slots__ = ("job_id", "fence", "outcome", "result", "error", "permanent", "delay", "lease", "claim_revision", "error_bases", "spends_budget", "park", "attempt_token", "result_object", "result_lost")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PERMANENT_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    CLAIM_REVISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_BASES_FIELD_NUMBER: _ClassVar[int]
    SPENDS_BUDGET_FIELD_NUMBER: _ClassVar[int]
    PARK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESULT_OBJECT_FIELD_NUMBER: _ClassVar[int]
    RESULT_LOST_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    fence: int
    outcome: _job_pb2.Outcome
    result: str
    error: _job_pb2.JobError
    permanent: bool
    delay: _duration_pb2.Duration
    lease: int
    claim_revision: int
    error_bases: _containers.RepeatedScalarFieldContainer[str]
    spends_budget: bool
    park: Park
    attempt_token: str
    result_object: _job_pb2.ResultObject
    result_lost: _job_pb2.ResultLost
    def __init__(self, job_id: _Optional[str] = ..., fence: _Optional[int] = ..., outcome: _Optional[_Union[_job_pb2.Outcome, str]] = ..., result: _Optional[str] = ..., error: _Optional[_Union[_job_pb2.JobError, _Mapping]] = ..., permanent: _Optional[bool] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lease: _Optional[int] = ..., claim_revision: _Optional[int] = ..., error_bases: _Optional[_Iterable[str]] = ..., spends_budget: _Optional[bool] = ..., park: _Optional[_Union[Park, _Mapping]] = ..., attempt_token: _Optional[str] = ..., result_object: _Optional[_Union[_job_pb2.ResultObject, _Mapping]] = ..., result_lost: _Optional[_Union[_job_pb2.ResultLost, _Mapping]] = ...) -> None: ...

class Park(_message.Message):
    __slots__ = ("children", "checkpoint", "trigger")
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    children: _containers.RepeatedScalarFieldContainer[str]
    checkpoint: str
    trigger: _job_pb2.Trigger
    def __init__(self, children: _Optional[_Iterable[str]] = ..., checkpoint: _Optional[str] = ..., trigger: _Optional[_Union[_job_pb2.Trigger, str]] = ...) -> None: ...

class FinishAttemptsRequest(_message.Message):
    __slots__ = ("worker", "reports")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    reports: _containers.RepeatedCompositeFieldContainer[AttemptReport]
    def __init__(self, worker: _Optional[str] = ..., reports: _Optional[_Iterable[_Union[AttemptReport, _Mapping]]] = ...) -> None: ...

class FinishedAttempt(_message.Message):
    __slots__ = ("job_id", "verdict", "message", "state", "claim_deleted")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CLAIM_DELETED_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    verdict: Verdict
    message: str
    state: _job_pb2.JobState
    claim_deleted: bool
    def __init__(self, job_id: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., message: _Optional[str] = ..., state: _Optional[_Union[_job_pb2.JobState, str]] = ..., claim_deleted: _Optional[bool] = ...) -> None: ...

class FinishAttemptsResponse(_message.Message):
    __slots__ = ("attempts",)
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    attempts: _containers.RepeatedCompositeFieldContainer[FinishedAttempt]
    def __init__(self, attempts: _Optional[_Iterable[_Union[FinishedAttempt, _Mapping]]] = ...) -> None: ...

class ProgressReport(_message.Message):
    __slots__ = ("job_id", "fence", "fraction", "message", "attempt_token")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    fence: int
    fraction: float
    message: str
    attempt_token: str
    def __init__(self, job_id: _Optional[str] = ..., fence: _Optional[int] = ..., fraction: _Optional[float] = ..., message: _Optional[str] = ..., attempt_token: _Optional[str] = ...) -> None: ...

class ReportProgressRequest(_message.Message):
    __slots__ = ("reports",)
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[ProgressReport]
    def __init__(self, reports: _Optional[_Iterable[_Union[ProgressReport, _Mapping]]] = ...) -> None: ...

class ReportProgressResponse(_message.Message):
    __slots__ = ("verdicts",)
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedScalarFieldContainer[Verdict]
    def __init__(self, verdicts: _Optional[_Iterable[_Union[Verdict, str]]] = ...) -> None: ...

class SaveCheckpointRequest(_message.Message):
    __slots__ = ("job_id", "fence", "checkpoint", "attempt_token")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    fence: int
    checkpoint: str
    attempt_token: str
    def __init__(self, job_id: _Optional[str] = ..., fence: _Optional[int] = ..., checkpoint: _Optional[str] = ..., attempt_token: _Optional[str] = ...) -> None: ...

class SaveCheckpointResponse(_message.Message):
    __slots__ = ("verdict",)
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ...) -> None: ...

class SubmitChildrenRequest(_message.Message):
    __slots__ = ("job_id", "fence", "jobs", "attempt_token")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    fence: int
    jobs: _containers.RepeatedCompositeFieldContainer[_job_pb2.JobSpec]
    attempt_token: str
    def __init__(self, job_id: _Optional[str] = ..., fence: _Optional[int] = ..., jobs: _Optional[_Iterable[_Union[_job_pb2.JobSpec, _Mapping]]] = ..., attempt_token: _Optional[str] = ...) -> None: ...

class SubmitChildrenResponse(_message.Message):
    __slots__ = ("verdict", "jobs")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    jobs: _containers.RepeatedCompositeFieldContainer[_job_service_pb2.SubmittedJob]
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., jobs: _Optional[_Iterable[_Union[_job_service_pb2.SubmittedJob, _Mapping]]] = ...) -> None: ...

class ReadUpstreamRequest(_message.Message):
    __slots__ = ("job_id", "fence", "page_token", "attempt_token", "result_of")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESULT_OF_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    fence: int
    page_token: str
    attempt_token: str
    result_of: str
    def __init__(self, job_id: _Optional[str] = ..., fence: _Optional[int] = ..., page_token: _Optional[str] = ..., attempt_token: _Optional[str] = ..., result_of: _Optional[str] = ...) -> None: ...

class UpstreamJob(_message.Message):
    __slots__ = ("job_id", "kind", "key", "state", "result", "error", "reason", "result_object", "result_lost", "result_url")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESULT_OBJECT_FIELD_NUMBER: _ClassVar[int]
    RESULT_LOST_FIELD_NUMBER: _ClassVar[int]
    RESULT_URL_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    kind: str
    key: str
    state: _job_pb2.JobState
    result: str
    error: _job_pb2.JobError
    reason: str
    result_object: _job_pb2.ResultObject
    result_lost: _job_pb2.ResultLost
    result_url: str
    def __init__(self, job_id: _Optional[str] = ..., kind: _Optional[str] = ..., key: _Optional[str] = ..., state: _Optional[_Union[_job_pb2.JobState, str]] = ..., result: _Optional[str] = ..., error: _Optional[_Union[_job_pb2.JobError, _Mapping]] = ..., reason: _Optional[str] = ..., result_object: _Optional[_Union[_job_pb2.ResultObject, _Mapping]] = ..., result_lost: _Optional[_Union[_job_pb2.ResultLost, _Mapping]] = ..., result_url: _Optional[str] = ...) -> None: ...

class ReadUpstreamResponse(_message.Message):
    __slots__ = ("verdict", "jobs", "next_page_token")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    jobs: _containers.RepeatedCompositeFieldContainer[UpstreamJob]
    next_page_token: str
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., jobs: _Optional[_Iterable[_Union[UpstreamJob, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class LogBatch(_message.Message):
    __slots__ = ("job_id", "fence", "first_seq", "lines", "attempt_token")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    fence: int
    first_seq: int
    lines: _containers.RepeatedCompositeFieldContainer[_job_pb2.LogLine]
    attempt_token: str
    def __init__(self, job_id: _Optional[str] = ..., fence: _Optional[int] = ..., first_seq: _Optional[int] = ..., lines: _Optional[_Iterable[_Union[_job_pb2.LogLine, _Mapping]]] = ..., attempt_token: _Optional[str] = ...) -> None: ...

class AppendLogsRequest(_message.Message):
    __slots__ = ("batches",)
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedCompositeFieldContainer[LogBatch]
    def __init__(self, batches: _Optional[_Iterable[_Union[LogBatch, _Mapping]]] = ...) -> None: ...

class AppendedLogs(_message.Message):
    __slots__ = ("verdict", "message", "last_seq", "is_full")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    IS_FULL_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    message: str
    last_seq: int
    is_full: bool
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., message: _Optional[str] = ..., last_seq: _Optional[int] = ..., is_full: _Optional[bool] = ...) -> None: ...

class AppendLogsResponse(_message.Message):
    __slots__ = ("batches",)
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedCompositeFieldContainer[AppendedLogs]
    def __init__(self, batches: _Optional[_Iterable[_Union[AppendedLogs, _Mapping]]] = ...) -> None: ...

class CreateUploadRequest(_message.Message):
    __slots__ = ("job_id", "fence", "attempt_token", "name", "size_bytes", "sha256", "content_type", "upload")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    fence: int
    attempt_token: str
    name: str
    size_bytes: int
    sha256: bytes
    content_type: str
    upload: str
    def __init__(self, job_id: _Optional[str] = ..., fence: _Optional[int] = ..., attempt_token: _Optional[str] = ..., name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ..., content_type: _Optional[str] = ..., upload: _Optional[str] = ...) -> None: ...

class CreateUploadResponse(_message.Message):
    __slots__ = ("verdict", "upload", "url", "headers", "part_bytes", "part_urls")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    PART_BYTES_FIELD_NUMBER: _ClassVar[int]
    PART_URLS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    upload: str
    url: str
    headers: _containers.ScalarMap[str, str]
    part_bytes: int
    part_urls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., upload: _Optional[str] = ..., url: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., part_bytes: _Optional[int] = ..., part_urls: _Optional[_Iterable[str]] = ...) -> None: ...

class CompleteUploadRequest(_message.Message):
    __slots__ = ("job_id", "fence", "attempt_token", "upload", "part_tags")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    PART_TAGS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    fence: int
    attempt_token: str
    upload: str
    part_tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, job_id: _Optional[str] = ..., fence: _Optional[int] = ..., attempt_token: _Optional[str] = ..., upload: _Optional[str] = ..., part_tags: _Optional[_Iterable[str]] = ...) -> None: ...

class CompleteUploadResponse(_message.Message):
    __slots__ = ("verdict",)
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ...) -> None: ...
