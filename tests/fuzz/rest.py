"""``make fuzz``: schemathesis over the OpenAPI document of a coordinator on embedded stores.

schemathesis comes into a virtual environment of its own: it has many dependencies, and nothing of tenure's needs them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tenure.cli.embedded.deployment import Deployment

RELEASE = "4.32.5"
HOME = Path(__file__).parents[2] / ".dev" / "fuzz"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "response_schema_conformance",
    "content_type_conformance",
    "unsupported_method",
)


def main() -> int:
    """Fuzz, and return the exit code of schemathesis; 1 if the coordinator logged a defect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100, help="of each call and phase (default: 100)")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if not (HOME / "bin" / "schemathesis").exists():
        venv.create(HOME, with_pip=True, clear=True)
        subprocess.run(
            [HOME / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", f"schemathesis=={RELEASE}"],
            check=True,
        )
    with (
        tempfile.TemporaryDirectory() as folder,
        Deployment(Path(folder), coordinators=1, workers=0, fsync=False) as deployment,
    ):
        url = f"http://{deployment.http_addresses[0]}"
        command = [str(HOME / "bin" / "schemathesis"), "run", f"{url}/openapi.json", "--url", url, "--no-color"]
        options = ["--max-examples", str(asked.examples), "--seed", str(asked.seed), "--request-timeout", "40"]
        ended = subprocess.run([*command, *options, "--checks", ",".join(CHECKS)], check=False).returncode
        defects = deployment.coordinators[0].output().count('"call_failed"')
    print(f"defects that the coordinator logged: {defects}")
    return ended or (1 if defects else 0)


if __name__ == "__main__":
    sys.exit(main())
