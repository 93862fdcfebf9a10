# Everything needs Python 3.11 or later and nothing else; the first call fills .venv/ from the hash-checked lock.
# Further arguments: make test ARGS='-k etcd', make up ARGS='--workers 5'.

.DEFAULT_GOAL := help
.PHONY: help demo up test chaos soak mutants check format fuzz bench bench-scale proto lock wheel image images tools clean venv venv-dev
ARGS ?=
MINUTES ?= 5
HOURS ?= 2
SEED ?=

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: venv ## Run the inventory example on an embedded Postgres and etcd, and print what it found
	@.venv/bin/python -m tenure.examples.inventory.demo $(ARGS)

up: venv ## Run a whole tenure here until Ctrl-C (data in .tenure/up)
	@.venv/bin/tenure up $(ARGS)

test: venv-dev ## Run the whole test suite on real stores
	@.venv/bin/python -m pytest -n 2 $(ARGS)

chaos: venv-dev ## Workload and faults for MINUTES=5 (SEED=n repeats a plan), judged by a checker; as root with partitions
	@.venv/bin/python -m tests.chaos.run --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: venv-dev ## The same for HOURS=2, with a look each half minute at what must not grow
	@.venv/bin/python -m tests.chaos.run --hours $(HOURS) --sample 30 $(if $(SEED),--seed $(SEED)) $(ARGS)

check: venv-dev ## Lint, types, import contracts, generated code up to date
	@sh scripts/check.sh

format: venv-dev ## Format the code
	@.venv/bin/ruff check --fix-only --quiet . && .venv/bin/ruff format .

mutants: venv-dev ## Break each rule of the code in turn and show that a test notices (some 15 minutes; ARGS='--only NAME')
	@.venv/bin/python -m tests.mutants.run $(ARGS)

fuzz: venv-dev ## Fuzz the API of runners with schemathesis (ARGS='--examples 500')
	@.venv/bin/python -m tests.fuzz.rest $(ARGS)

bench: venv-dev ## Measure rates, latencies and CPU per job on the real parts
	@.venv/bin/python -m tenure.bench $(ARGS)

bench-scale: venv-dev ## Measure what becomes of it when there is much of something: an hour, and 20 GB of disk
	@.venv/bin/python -m tenure.bench life full fleet waiters workflow schedules limits namespaces slow $(ARGS)

proto: venv-dev ## Regenerate the stubs from proto/
	@sh scripts/generate_proto.sh

lock: ## Renew requirements/*.lock from pyproject.toml (needs uv)
	@sh scripts/lock.sh

wheel: venv-dev ## Build the wheel into dist/
	@.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -w dist .

image: venv-dev ## Build the container image (needs a Docker engine; docs/IMAGE.md)
	@sh deploy/image/build.sh $(ARGS)

images: ## Make the container images that the tests' containers backend uses, without a registry
	@bash tests/images/build.sh

tools: ## Build the servers of some tests from their Go modules into .cache/tools (needs Go; ARGS=etcd or kube-apiserver)
	@sh scripts/tools.sh $(or $(ARGS),etcd kube-apiserver)

clean: ## Remove .venv/, caches and build results (not .tenure/, which holds data)
	@rm -rf .venv .dev build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

venv:
	@sh scripts/bootstrap.sh run

venv-dev:
	@sh scripts/bootstrap.sh dev
