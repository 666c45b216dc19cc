"""The gRPC server base: `GrpcServer(settings, services=[(add_fn, servicer, full_name)])`."""

from service_kit.grpc_server.call import CallContext, current_call
from service_kit.grpc_server.server import GrpcServer, Service, client_options
from service_kit.grpc_server.settings import GrpcSettings

__all__ = ["CallContext", "GrpcServer", "GrpcSettings", "Service", "client_options", "current_call"]
