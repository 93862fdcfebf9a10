import datetime

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
    __slots__ = ()
    def __init__(self) -> None: ...

class HeldClaim(_message.Message):
    __slots__ = ("job_id", "worker", "namespace", "kind", "route", "lease", "revision", "claimed_at")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_AT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    worker: str
    namespace: str
    kind: str
    route: str
    lease: int
    revision: int
    claimed_at: _timestamp_pb2.Timestamp
    def __init__(self, job_id: _Optional[str] = ..., worker: _Optional[str] = ..., namespace: _Optional[str] = ..., kind: _Optional[str] = ..., route: _Optional[str] = ..., lease: _Optional[int] = ..., revision: _Optional[int] = ..., claimed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

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
