"""The pages, one module for each. Each has a table ``ROUTES``: path, methods, handler."""
