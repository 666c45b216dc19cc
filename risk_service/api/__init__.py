"""RiskService over gRPC; the only place of risk_service that knows of grpc."""
