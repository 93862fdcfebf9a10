"""``python -m tenure.bench``: the command."""

from tenure.bench.command import run

if __name__ == "__main__":
    run()
