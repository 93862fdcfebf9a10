"""The gRPC server of a coordinator: services, health and reflection, with its bounds in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from tenure.coordinator.api.audit_service import AuditService
from tenure.coordinator.api.call_bounds import DEFAULT_CALLS, CallBounds
from tenure.coordinator.api.cluster_service import ClusterService
from tenure.coordinator.api.gate import Gate
from tenure.coordinator.api.job_service import JobService
from tenure.coordinator.api.kind_service import KindService
from tenure.coordinator.api.limit_service import LimitService
from tenure.coordinator.api.namespace_service import NamespaceService
from tenure.coordinator.api.pool_service import PoolService
from tenure.coordinator.api.refusals import OnDenied, Refusals
from tenure.coordinator.api.retention_service import RetentionService
from tenure.coordinator.api.schedule_service import ScheduleService
from tenure.coordinator.api.token_service import TokenService
from tenure.coordinator.api.worker_service import WorkerService
from tenure.coordinator.api.workflow_service import WorkflowService
from tenure.coordinator.authenticate import Authenticator
from tenure.model.errors import ConfigurationError
from tenure.probes.tls import ServerTLS
from tenure.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server
from tenure.v1.cluster_service_pb2_grpc import add_ClusterServiceServicer_to_server
from tenure.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from tenure.v1.kind_service_pb2_grpc import add_KindServiceServicer_to_server
from tenure.v1.limit_service_pb2_grpc import add_LimitServiceServicer_to_server
from tenure.v1.namespace_service_pb2_grpc import add_NamespaceServiceServicer_to_server
from tenure.v1.pool_service_pb2_grpc import add_PoolServiceServicer_to_server
from tenure.v1.retention_service_pb2_grpc import add_RetentionServiceServicer_to_server
from tenure.v1.schedule_service_pb2_grpc import add_ScheduleServiceServicer_to_server
from tenure.v1.token_service_pb2_grpc import add_TokenServiceServicer_to_server
from tenure.v1.worker_service_pb2_grpc import add_WorkerServiceServicer_to_server
from tenure.v1.workflow_service_pb2_grpc import add_WorkflowServiceServicer_to_server

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""A batch of 10,000 jobs with payloads of some KiB; each payload has its own, smaller bound."""

MAX_METADATA_BYTES = 16 * 1024

_ADD: dict[type, Callable[[Any, grpc.aio.Server], None]] = {
    JobService: add_JobServiceServicer_to_server,
    WorkerService: add_WorkerServiceServicer_to_server,
    ClusterService: add_ClusterServiceServicer_to_server,
    LimitService: add_LimitServiceServicer_to_server,
    PoolService: add_PoolServiceServicer_to_server,
    ScheduleService: add_ScheduleServiceServicer_to_server,
    NamespaceService: add_NamespaceServiceServicer_to_server,
    WorkflowService: add_WorkflowServiceServicer_to_server,
    KindService: add_KindServiceServicer_to_server,
    TokenService: add_TokenServiceServicer_to_server,
    AuditService: add_AuditServiceServicer_to_server,
    RetentionService: add_RetentionServiceServicer_to_server,
}
SERVICES = tuple(f"tenure.v1.{kind.__name__}" for kind in _ADD)


class GrpcServer:
    """Built stopped. ``address`` is known once started (port 0 takes a free one)."""

    def __init__(
        self,
        services: Iterable[object],
        *,
        listen: str,
        with_reflection: bool,
        authenticator: Authenticator | None = None,
        tls: ServerTLS | None = None,
        on_denied: OnDenied | None = None,
        bounds: CallBounds = DEFAULT_CALLS,
        private: str | None = None,
    ) -> None:
        """Without an authenticator nobody is asked who they are.

        ``private`` is a Unix socket (``unix:/…``) to listen on besides, without TLS; who may open it is for its folder
        to say, and who calls there is asked as elsewhere.
        """
        self._listen = listen
        self._private = private
        self._tls = tls
        refusals = Refusals(bounds, on_denied)
        self._server = grpc.aio.server(
            interceptors=[refusals, Gate(authenticator)] if authenticator else [refusals],
            maximum_concurrent_rpcs=bounds.calls,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                # Pings more often than that, and the connection is closed: workers send one in ten seconds.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
                ("grpc.http2.max_ping_strikes", 2),
                # Of one connection; those of one client's waiting calls share it.
                ("grpc.max_concurrent_streams", 10_000),
                ("grpc.max_metadata_size", MAX_METADATA_BYTES),
                # Who connects and says nothing is left.
                ("grpc.server_handshake_timeout_ms", 20_000),
                # A caller that is gone without a word is found out, and what it watches is let go.
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
            ],
        )
        self._health = health.HealthServicer()
        for service in services:
            _ADD[type(service)](service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if with_reflection:
            names = (*SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        self.address = listen

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: the address cannot be had.
        """
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(self._listen)
            else:
                port = self._server.add_secure_port(self._listen, self._tls.grpc_credentials())
            if self._private is not None:
                self._server.add_insecure_port(self._private)
        except RuntimeError as exc:
            raise ConfigurationError(
                f"cannot listen for gRPC on {self._listen}: {exc}",
                hint="is another coordinator there? set TENURE_GRPC_LISTEN"
                if self._tls is None
                else "is another coordinator there, or is TENURE_TLS_CERT of no use to gRPC?",
            ) from exc
        self.address = f"{self._listen.rsplit(':', 1)[0]}:{port}"
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """Tell the health service."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *SERVICES):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way end within the grace period."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
