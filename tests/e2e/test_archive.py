"""The archive with real processes: leaders that are killed while they archive."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections import Counter

from pyarrow import parquet
from tests.e2e.conftest import Setting, Stage
from tests.e2e.test_retention import FILL, TRIED, run

EXPIRED, HELD, FRESH = 6_000, 50, 50


async def ids_in(on: Stage, where: str = "true") -> set[uuid.UUID]:
    return {id for (id,) in await run(on, f"SELECT id FROM tenure.history WHERE {where}")}


async def test_leaders_that_are_killed_while_they_archive_put_each_job_into_one_file(stage: Setting) -> None:
    on = await stage(coordinators=3, workers=0)
    await on.client.put_hold("case", "7")
    sizes = {"old": EXPIRED + HELD, "held": HELD, "all": EXPIRED + HELD + FRESH}
    await run(on, FILL, sizes)
    await run(on, TRIED)
    expired = await ids_in(on, "labels IS NULL AND finished_at < now() - interval '2 days'")
    assert len(expired) == EXPIRED

    async def files_are(least: int) -> None:
        async with asyncio.timeout(150):
            while True:
                [[count]] = await run(on, "SELECT count(*) FROM tenure.archive_file WHERE state = 'done'")
                if count >= least or not expired & await ids_in(on):
                    return
                await asyncio.sleep(0.005)

    await on.client.put_retention(keep_s=86_400, archive=True)
    for least in (1, 3):
        await files_are(least)
        leader = (await on.client.cluster()).leader
        next(one for one in on.deployment.coordinators if one.id == leader).kill()
    await files_are(10**9)
    assert await ids_in(on, "labels IS NULL") == await ids_in(on) - await ids_in(on, "labels IS NOT NULL")
    assert len(await ids_in(on)) == HELD + FRESH
    root = on.deployment.folder.path / "objects"
    files = [file async for file in on.client.archive_files()]
    found: Counter[uuid.UUID] = Counter()
    for file in files:
        data = (root / file.key).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file.sha256
        assert await on.client.verify_archive_file(file.id) is None
        found.update(map(uuid.UUID, parquet.read_table(root / file.key)["id"].to_pylist()))
        assert json.loads((root / file.key).with_suffix(".json").read_text())["rows"] == file.jobs
    assert found == Counter(expired), "each is in one file"
    some = sorted(expired)[:: EXPIRED // 5]
    jobs = await asyncio.gather(*(on.client.get(str(id)) for id in some))
    assert all(job.archived_at is not None and job.id == str(id) for job, id in zip(jobs, some, strict=True))
    counting = {(root / file.key).with_suffix(suffix) for file in files for suffix in (".parquet", ".json")}
    async with asyncio.timeout(150):  # what killed leaders have left is deleted
        while True:
            if {path for path in (root / "_archive").rglob("*") if path.is_file()} == counting:
                return
            await asyncio.sleep(0.2)
