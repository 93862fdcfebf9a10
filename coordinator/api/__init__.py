"""The outside of a coordinator: gRPC services and the HTTP endpoints, thin over the steps beside it."""
