"""The command line ``tenure``: parses, calls the client or starts a process, prints. Decides nothing itself."""
