import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetClusterRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Coordinator(_message.Message):
    __slots__ = ("id", "grpc", "http", "version", "is_leader", "started_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    GRPC_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_LEADER_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    grpc: str
    http: str
    version: str
    is_leader: bool
    started_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., grpc: _Optional[str] = ..., http: _Optional[str] = ..., version: _Optional[str] = ..., is_leader: _Optional[bool] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetClusterResponse(_message.Message):
    __slots__ = ("coordinators", "leader", "epoch", "etcd_version", "postgres_version", "schema_version", "version")
    COORDINATORS_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ETCD_VERSION_FIELD_NUMBER: _ClassVar[int]
    POSTGRES_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    coordinators: _containers.RepeatedCompositeFieldContainer[Coordinator]
    leader: str
    epoch: int
    etcd_version: str
    postgres_version: str
    schema_version: str
    version: str
    def __init__(self, coordinators: _Optional[_Iterable[_Union[Coordinator, _Mapping]]] = ..., leader: _Optional[str] = ..., epoch: _Optional[int] = ..., etcd_version: _Optional[str] = ..., postgres_version: _Optional[str] = ..., schema_version: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class WatchClusterRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServedPool(_message.Message):
    __slots__ = ("path", "workers", "capacity")
    PATH_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    path: str
    workers: int
    capacity: int
    def __init__(self, path: _Optional[str] = ..., workers: _Optional[int] = ..., capacity: _Optional[int] = ...) -> None: ...

class WatchClusterResponse(_message.Message):
    __slots__ = ("coordinators", "leader", "workers", "more_workers", "pools")
    COORDINATORS_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    MORE_WORKERS_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    coordinators: _containers.RepeatedCompositeFieldContainer[Coordinator]
    leader: str
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    more_workers: int
    pools: _containers.RepeatedCompositeFieldContainer[ServedPool]
    def __init__(self, coordinators: _Optional[_Iterable[_Union[Coordinator, _Mapping]]] = ..., leader: _Optional[str] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., more_workers: _Optional[int] = ..., pools: _Optional[_Iterable[_Union[ServedPool, _Mapping]]] = ...) -> None: ...

class CheckObjectStoreRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ObjectStoreStep(_message.Message):
    __slots__ = ("name", "took_s", "problem", "hint")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOOK_S_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    name: str
    took_s: float
    problem: str
    hint: str
    def __init__(self, name: _Optional[str] = ..., took_s: _Optional[float] = ..., problem: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class CheckObjectStoreResponse(_message.Message):
    __slots__ = ("steps",)
    STEPS_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[ObjectStoreStep]
    def __init__(self, steps: _Optional[_Iterable[_Union[ObjectStoreStep, _Mapping]]] = ...) -> None: ...

class ListWorkersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Worker(_message.Message):
    __slots__ = ("id", "pools", "kinds", "capacity", "claims", "labels", "mode", "host", "version", "draining", "started_at")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    pools: _containers.RepeatedScalarFieldContainer[str]
    kinds: _containers.RepeatedScalarFieldContainer[str]
    capacity: int
    claims: int
    labels: _containers.ScalarMap[str, str]
    mode: str
    host: str
    version: str
    draining: bool
    started_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., pools: _Optional[_Iterable[str]] = ..., kinds: _Optional[_Iterable[str]] = ..., capacity: _Optional[int] = ..., claims: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., mode: _Optional[str] = ..., host: _Optional[str] = ..., version: _Optional[str] = ..., draining: _Optional[bool] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class ListClaimsRequest(_message.Message):
    __slots__ = ("limit", "with_time_left")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WITH_TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    with_time_left: bool
    def __init__(self, limit: _Optional[int] = ..., with_time_left: _Optional[bool] = ...) -> None: ...

class HeldClaim(_message.Message):
    __slots__ = ("job_id", "worker", "namespace", "kind", "route", "lease", "revision", "claimed_at", "time_left", "ttl")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_AT_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    worker: str
    namespace: str
    kind: str
    route: str
    lease: int
    revision: int
    claimed_at: _timestamp_pb2.Timestamp
    time_left: _duration_pb2.Duration
    ttl: _duration_pb2.Duration
    def __init__(self, job_id: _Optional[str] = ..., worker: _Optional[str] = ..., namespace: _Optional[str] = ..., kind: _Optional[str] = ..., route: _Optional[str] = ..., lease: _Optional[int] = ..., revision: _Optional[int] = ..., claimed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., time_left: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ListClaimsResponse(_message.Message):
    __slots__ = ("claims",)
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    claims: _containers.RepeatedCompositeFieldContainer[HeldClaim]
    def __init__(self, claims: _Optional[_Iterable[_Union[HeldClaim, _Mapping]]] = ...) -> None: ...

class RevokeClaimRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class RevokeClaimResponse(_message.Message):
    __slots__ = ("revoked",)
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    revoked: bool
    def __init__(self, revoked: _Optional[bool] = ...) -> None: ...

class HintReadyRequest(_message.Message):
    __slots__ = ("lanes",)
    LANES_FIELD_NUMBER: _ClassVar[int]
    lanes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, lanes: _Optional[_Iterable[int]] = ...) -> None: ...

class HintReadyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetOverviewRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Figures(_message.Message):
    __slots__ = ("submitted", "completed", "failed", "canceled", "returned", "lost")
    SUBMITTED_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    CANCELED_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    submitted: int
    completed: int
    failed: int
    canceled: int
    returned: int
    lost: int
    def __init__(self, submitted: _Optional[int] = ..., completed: _Optional[int] = ..., failed: _Optional[int] = ..., canceled: _Optional[int] = ..., returned: _Optional[int] = ..., lost: _Optional[int] = ...) -> None: ...

class PoolOverview(_message.Message):
    __slots__ = ("pool", "ready", "executing", "oldest_ready_at", "workers", "paused", "last_minute", "last_hour")
    POOL_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    EXECUTING_FIELD_NUMBER: _ClassVar[int]
    OLDEST_READY_AT_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    LAST_MINUTE_FIELD_NUMBER: _ClassVar[int]
    LAST_HOUR_FIELD_NUMBER: _ClassVar[int]
    pool: str
    ready: int
    executing: int
    oldest_ready_at: _timestamp_pb2.Timestamp
    workers: int
    paused: bool
    last_minute: Figures
    last_hour: Figures
    def __init__(self, pool: _Optional[str] = ..., ready: _Optional[int] = ..., executing: _Optional[int] = ..., oldest_ready_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., workers: _Optional[int] = ..., paused: _Optional[bool] = ..., last_minute: _Optional[_Union[Figures, _Mapping]] = ..., last_hour: _Optional[_Union[Figures, _Mapping]] = ...) -> None: ...

class GetOverviewResponse(_message.Message):
    __slots__ = ("at", "pools", "last_minute", "last_hour", "minutes", "ready", "ready_at_least", "executing", "executing_at_least", "waiting", "waiting_at_least", "delayed", "delayed_at_least", "oldest_ready_at", "workers", "draining_workers", "capacity", "claims", "leader", "leader_term", "coordinators", "silent", "counted_since")
    AT_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    LAST_MINUTE_FIELD_NUMBER: _ClassVar[int]
    LAST_HOUR_FIELD_NUMBER: _ClassVar[int]
    MINUTES_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    READY_AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    EXECUTING_FIELD_NUMBER: _ClassVar[int]
    EXECUTING_AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    WAITING_AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    DELAYED_FIELD_NUMBER: _ClassVar[int]
    DELAYED_AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    OLDEST_READY_AT_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_WORKERS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    LEADER_TERM_FIELD_NUMBER: _ClassVar[int]
    COORDINATORS_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    COUNTED_SINCE_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    pools: _containers.RepeatedCompositeFieldContainer[PoolOverview]
    last_minute: Figures
    last_hour: Figures
    minutes: _containers.RepeatedCompositeFieldContainer[Figures]
    ready: int
    ready_at_least: bool
    executing: int
    executing_at_least: bool
    waiting: int
    waiting_at_least: bool
    delayed: int
    delayed_at_least: bool
    oldest_ready_at: _timestamp_pb2.Timestamp
    workers: int
    draining_workers: int
    capacity: int
    claims: int
    leader: str
    leader_term: int
    coordinators: int
    silent: _containers.RepeatedScalarFieldContainer[str]
    counted_since: _timestamp_pb2.Timestamp
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pools: _Optional[_Iterable[_Union[PoolOverview, _Mapping]]] = ..., last_minute: _Optional[_Union[Figures, _Mapping]] = ..., last_hour: _Optional[_Union[Figures, _Mapping]] = ..., minutes: _Optional[_Iterable[_Union[Figures, _Mapping]]] = ..., ready: _Optional[int] = ..., ready_at_least: _Optional[bool] = ..., executing: _Optional[int] = ..., executing_at_least: _Optional[bool] = ..., waiting: _Optional[int] = ..., waiting_at_least: _Optional[bool] = ..., delayed: _Optional[int] = ..., delayed_at_least: _Optional[bool] = ..., oldest_ready_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., workers: _Optional[int] = ..., draining_workers: _Optional[int] = ..., capacity: _Optional[int] = ..., claims: _Optional[int] = ..., leader: _Optional[str] = ..., leader_term: _Optional[int] = ..., coordinators: _Optional[int] = ..., silent: _Optional[_Iterable[str]] = ..., counted_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetOwnFiguresRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PoolFigures(_message.Message):
    __slots__ = ("pool", "last_minute", "last_hour")
    POOL_FIELD_NUMBER: _ClassVar[int]
    LAST_MINUTE_FIELD_NUMBER: _ClassVar[int]
    LAST_HOUR_FIELD_NUMBER: _ClassVar[int]
    pool: str
    last_minute: Figures
    last_hour: Figures
    def __init__(self, pool: _Optional[str] = ..., last_minute: _Optional[_Union[Figures, _Mapping]] = ..., last_hour: _Optional[_Union[Figures, _Mapping]] = ...) -> None: ...

class GetOwnFiguresResponse(_message.Message):
    __slots__ = ("pools", "minutes", "since")
    POOLS_FIELD_NUMBER: _ClassVar[int]
    MINUTES_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    pools: _containers.RepeatedCompositeFieldContainer[PoolFigures]
    minutes: _containers.RepeatedCompositeFieldContainer[Figures]
    since: _timestamp_pb2.Timestamp
    def __init__(self, pools: _Optional[_Iterable[_Union[PoolFigures, _Mapping]]] = ..., minutes: _Optional[_Iterable[_Union[Figures, _Mapping]]] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetCallerRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCallerResponse(_message.Message):
    __slots__ = ("name", "role", "namespaces", "pools")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    pools: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., namespaces: _Optional[_Iterable[str]] = ..., pools: _Optional[_Iterable[str]] = ...) -> None: ...
