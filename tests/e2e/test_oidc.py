"""A deployment whose people and workers show tokens of an OIDC issuer, and no stored one."""

from __future__ import annotations

import pytest
from tests.e2e.conftest import Setting
from tests.fixtures.issuer import AUDIENCE, ED, P256, issuing

from tenure.client import AsyncClient, PermissionDenied, Unauthenticated


async def test_jobs_run_by_tokens_of_an_issuer(stage: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    async with issuing() as issuer:
        team = issuer.token(P256, "ES256", "p256", sub="team", tenure_role="submitter", tenure_namespaces=["team"])
        worker = issuer.token(
            ED, "EdDSA", "ed", sub="worker", tenure_role="worker", tenure_namespaces=None, tenure_pools=["default"]
        )
        # Clients of the stage, such as the one that sees that the worker is there, may read.
        monkeypatch.setenv("TENURE_TOKEN", team)
        env = {
            "TENURE_AUTH": "required",
            "TENURE_OIDC_ISSUER": issuer.url,
            "TENURE_OIDC_AUDIENCE": AUDIENCE,
            "TENURE_TOKEN": worker,
        }
        on = await stage(coordinators=2, workers=1, env=env)
        for address in on.deployment.coordinator_addresses:
            async with AsyncClient(address, token=team) as client:
                job = await client.submit("noop", {"n": 1}, namespace="team")
                assert (await client.wait(job.id, timeout_s=60)).state == "completed"
                with pytest.raises(
                    PermissionDenied, match="oidc:team \\(submitter\\) may not submit in namespace other"
                ):
                    await client.submit("noop", namespace="other")
            async with AsyncClient(address, token=issuer.token(aud="else.example")) as client:
                with pytest.raises(Unauthenticated, match="not valid"):
                    await client.submit("noop", namespace="team")
        said = "".join(member.output() for member in (*on.deployment.coordinators, *on.deployment.workers))
        assert team not in said and worker not in said
