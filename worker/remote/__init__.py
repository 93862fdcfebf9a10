"""Remote mode: a worker that speaks only HTTPS, always outbound."""
