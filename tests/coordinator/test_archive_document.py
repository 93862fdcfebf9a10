"""The sessions of docs/ARCHIVE.md read an archive that the real archiver has made."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.coordinator.conftest import Parts
from tests.coordinator.test_archive import archiver_of, policy
from tests.coordinator.test_retain import DAY_S, ended
from tests.docs.test_examples import _PROMISE, blocks, run

from tenure.coordinator import archive_format
from tenure.store.objects.folder import FolderObjects

DOCUMENT = "docs/ARCHIVE.md"


async def test_sessions_read_what_was_archived(alone: Parts, tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path / ".tenure" / "up" / "objects")
    for days in (9, 5, 2):
        await ended(alone, days * DAY_S, kind="report")
    failed = await ended(alone, 30 * DAY_S, kind="report", state="failed", labels={"team": "red"})
    await alone.sql("""UPDATE tenure.history SET payload = '{"of": "all"}'""")
    await alone.sql("UPDATE tenure.attempt SET outcome = 'failed' WHERE job_id = %s", failed)
    await policy(alone)
    assert await (await archiver_of(alone, objects)).round() == 4
    sessions = [block for block in blocks(DOCUMENT) if block.role == "archive"]
    assert len(sessions) == 2
    for block in sessions:
        script = tmp_path / block.name
        script.write_text(block.text, encoding="utf-8")
        told = run([sys.executable, script.name], tmp_path)
        promised = _PROMISE.findall(block.text)
        assert promised and told.splitlines() == promised


def test_the_document_has_every_column() -> None:
    table = (Path(__file__).resolve().parents[2] / DOCUMENT).read_text().partition("## Columns")[2]
    schema = archive_format.schema()
    assert [name for name in schema.names if f"`{name}`" not in table] == []
    for name in (*archive_format.ATTEMPT, *archive_format.ARTIFACT, *archive_format.LOG_HEAD):
        assert f"`{name}`" in table
