"""Examples that do real work with tenure."""
