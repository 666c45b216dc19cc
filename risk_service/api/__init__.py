"""RiskService over gRPC: requests in, the kernels' and the live state's answers out. The only place with grpc."""
