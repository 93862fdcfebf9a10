import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Pool(_message.Message):
    __slots__ = ("path", "workers", "ready", "executing", "paused")
    PATH_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    EXECUTING_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    path: str
    workers: int
    ready: int
    executing: int
    paused: bool
    def __init__(self, path: _Optional[str] = ..., workers: _Optional[int] = ..., ready: _Optional[int] = ..., executing: _Optional[int] = ..., paused: _Optional[bool] = ...) -> None: ...

class ListPoolsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPoolsResponse(_message.Message):
    __slots__ = ("pools",)
    POOLS_FIELD_NUMBER: _ClassVar[int]
    pools: _containers.RepeatedCompositeFieldContainer[Pool]
    def __init__(self, pools: _Optional[_Iterable[_Union[Pool, _Mapping]]] = ...) -> None: ...

class PauseSubject(_message.Message):
    __slots__ = ("pool", "kind", "namespace")
    POOL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    pool: str
    kind: str
    namespace: str
    def __init__(self, pool: _Optional[str] = ..., kind: _Optional[str] = ..., namespace: _Optional[str] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("subject", "reason")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    subject: PauseSubject
    reason: str
    def __init__(self, subject: _Optional[_Union[PauseSubject, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class PauseResponse(_message.Message):
    __slots__ = ("executing",)
    EXECUTING_FIELD_NUMBER: _ClassVar[int]
    executing: int
    def __init__(self, executing: _Optional[int] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("subject",)
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    subject: PauseSubject
    def __init__(self, subject: _Optional[_Union[PauseSubject, _Mapping]] = ...) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ("resumed",)
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    resumed: bool
    def __init__(self, resumed: _Optional[bool] = ...) -> None: ...

class Pause(_message.Message):
    __slots__ = ("subject", "reason", "paused_at", "executing")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PAUSED_AT_FIELD_NUMBER: _ClassVar[int]
    EXECUTING_FIELD_NUMBER: _ClassVar[int]
    subject: PauseSubject
    reason: str
    paused_at: _timestamp_pb2.Timestamp
    executing: int
    def __init__(self, subject: _Optional[_Union[PauseSubject, _Mapping]] = ..., reason: _Optional[str] = ..., paused_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., executing: _Optional[int] = ...) -> None: ...

class ListPausesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPausesResponse(_message.Message):
    __slots__ = ("pauses",)
    PAUSES_FIELD_NUMBER: _ClassVar[int]
    pauses: _containers.RepeatedCompositeFieldContainer[Pause]
    def __init__(self, pauses: _Optional[_Iterable[_Union[Pause, _Mapping]]] = ...) -> None: ...

class RemovePoolRequest(_message.Message):
    __slots__ = ("pool", "reason", "preview", "page_token")
    POOL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pool: str
    reason: str
    preview: bool
    page_token: str
    def __init__(self, pool: _Optional[str] = ..., reason: _Optional[str] = ..., preview: _Optional[bool] = ..., page_token: _Optional[str] = ...) -> None: ...

class RemovePoolResponse(_message.Message):
    __slots__ = ("canceled", "asked", "dependants", "next_page_token", "left", "removed")
    CANCELED_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    DEPENDANTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    canceled: int
    asked: int
    dependants: int
    next_page_token: str
    left: int
    removed: bool
    def __init__(self, canceled: _Optional[int] = ..., asked: _Optional[int] = ..., dependants: _Optional[int] = ..., next_page_token: _Optional[str] = ..., left: _Optional[int] = ..., removed: _Optional[bool] = ...) -> None: ...
