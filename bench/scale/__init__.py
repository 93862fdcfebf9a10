"""Scale: what becomes of tenure when there is much of something. Each module is one scenario of the benchmark."""
