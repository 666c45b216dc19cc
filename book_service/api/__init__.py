"""BookService over gRPC; the only place of book_service that knows of grpc."""
