# Sets up all it needs: a Python >= 3.12 (or uv) and cargo are enough. Everything lies in .venv/, target/ and build/.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export PATH := $(CURDIR)/build/uv/bin:$(HOME)/.cargo/bin:$(HOME)/.local/bin:$(PATH)
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv
# The module is built for this interpreter; cargo's other commands are to look at the same.
export PYO3_PYTHON := $(CURDIR)/.venv/bin/python
# Nothing but what the lock file names, whatever the caller's environment.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

BIN := .venv/bin
STAMPS := .venv/.stamps
RUST := $(shell find rust -name '*.rs' -o -name Cargo.toml 2>/dev/null) Cargo.toml Cargo.lock
PYTHON := python tests
# Tests that need them are skipped where there is no Go to build them with.
RENDERERS := $(if $(shell command -v go 2>/dev/null),build/kustomize/bin/kustomize build/helm/bin/helm)

.PHONY: help
help: ## Show this.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: build ## Show it working: an AWS emulator that checks signatures, sigward, and real clients.
	@$(BIN)/sigward demo

.PHONY: test
test: build ## Run all tests.
	cargo test --workspace --locked
	$(BIN)/pytest

.PHONY: faults
faults: build ## Run the tests of faults, also those that take long, and print them as one table.
	$(BIN)/pytest -m fault

.PHONY: deploy-test
deploy-test: build $(RENDERERS) ## Build the images and run what deploy/ holds, in containers. Needs root, Docker, debootstrap, Go >= 1.24.
	@command -v tofu >/dev/null || command -v terraform >/dev/null || ! command -v go >/dev/null || $(MAKE) build/tofu/bin/tofu
	$(BIN)/pytest -m "deploy or not deploy" tests/deploy tests/unit/test_kubernetes.py tests/unit/test_chart.py

# Evaluates deploy/ecs/terraform, where neither tofu nor terraform is installed.
TOFU := 1.6.3
build/tofu/bin/tofu:
	GOBIN=$(CURDIR)/build/tofu/bin CGO_ENABLED=0 go install github.com/opentofu/opentofu/cmd/tofu@v$(TOFU)

.PHONY: wheel
wheel: ## Build the wheel for this platform into dist/, check it, install it with uv and pipx.
	.ci/wheel

VERSION = $(shell $(BIN)/python -c 'import importlib.metadata as m; print(m.version("sigward"))')
REVISION = $(shell git rev-parse HEAD 2>/dev/null)

.PHONY: image
image: build ## Build the images sigward and sigward-inspect. BUILD_ARGS="--build-arg BASE=… --platform …"
	for target in sigward sigward-inspect; do \
		docker build --file deploy/docker/Dockerfile --target $$target --tag $$target:$(VERSION) --tag $$target:latest \
			--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(BUILD_ARGS) . || exit; \
	done

.PHONY: bench
bench: build ## Measure; prints the tables, and writes them into README.md and docs/benchmarks.md.
	@mkdir -p build/bench
	$(BIN)/python -m tests.bench.bench_signing --json build/bench/signing.json
	$(BIN)/python -m tests.bench.bench_native --json build/bench/native.json --plots docs/plots
	$(BIN)/python -m tests.bench.bench_proxy --json build/bench/proxy.json
	$(BIN)/python -m tests.bench.bench_memory --json build/bench/memory.json
	$(BIN)/python -m tests.bench.bench_audit --json build/bench/audit.json
	$(BIN)/python -m tests.bench.report build/bench/*.json

.PHONY: bench-deploy
bench-deploy: build ## Measure the sidecar's image: size, start to ready, idle memory. Run `make deploy-test` before.
	$(BIN)/python -m tests.bench.bench_deploy

SEEDS := 10000

.PHONY: simulate
simulate: ## Simulate the engine and its whole world for SEEDS seeds; one that fails prints itself. FIRST_SEED: where to begin.
	SIGWARD_SEEDS=$(SEEDS) SIGWARD_FIRST_SEED=$(or $(FIRST_SEED),0) \
		cargo test --profile simulation --locked -p sigward-engine --lib -- simulation --nocapture

SOAK_SECONDS := 600

.PHONY: soak
soak: build ## Let 300 days pass in SOAK_SECONDS for each front, with everything around it coming and going. Needs redis-server.
	@mkdir -p build/bench
	$(BIN)/python -m tests.bench.soak --seconds $(SOAK_SECONDS) --json build/bench/soak.json

.PHONY: saturation
saturation: build ## Load each front for SOAK_SECONDS at saturation; fails if memory or descriptors grow.
	@mkdir -p build/bench
	$(BIN)/python -m tests.bench.saturation --seconds $(SOAK_SECONDS) --json build/bench/saturation.json --plots docs/plots

.PHONY: screenshot
screenshot: build ## Make the picture of `sigward web` anew. Needs chromium, chromium-driver, fonts-noto-color-emoji.
	$(BIN)/python -m tests.e2e.screenshot docs/images/web.png

.PHONY: knowledge-report
knowledge-report: build ## Measure the table of operations against botocore.
	$(BIN)/python -m sigward.knowledge.report

FUZZ_SECONDS := 60

.PHONY: fuzz
fuzz: ## Fuzz the signer and the rules, FUZZ_SECONDS a target.
	rust/fuzz/run $(FUZZ_SECONDS)

.PHONY: readers
readers: build ## Have others read and sign 100,000 requests of all services, and compare.
	$(BIN)/python -m tests.agreement 100000
	TEST_SAMPLES=5 $(BIN)/pytest -q tests/unit/test_agreement.py tests/unit/test_signing.py

.PHONY: docs
# Not --quiet: what it silences, --strict does not count.
docs: build ## Build the documentation's site into build/site; a warning is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: reference
reference: build ## Write docs/settings.md, cli.md, errors.md and what else is made of the code.
	$(BIN)/python -m sigward.docs docs
	$(BIN)/python -m tests.fault_table docs/faults.md

.PHONY: check
check: build ## Formatting, lints and types.
	cargo fmt --all --check
	cargo fmt --manifest-path rust/fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(BIN)/ruff format --check $(PYTHON)
	$(BIN)/ruff check $(PYTHON)
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin
	$(BIN)/python -m mypy.stubtest sigward._core

.PHONY: fmt
fmt: $(STAMPS)/sync ## Format everything.
	cargo fmt --all
	cargo fmt --manifest-path rust/fuzz/Cargo.toml
	$(BIN)/ruff format $(PYTHON)
	$(BIN)/ruff check --fix --exit-zero --quiet $(PYTHON)

.PHONY: build
build: $(STAMPS)/module ## Make .venv from the lock file and build the Rust module into it.

# An S3 server whose verifier shares no code with ours; one of the tests' three.
S3S_FS := 0.14.1
build/s3s-fs/bin/s3s-fs:
	cargo install s3s-fs@$(S3S_FS) --locked --features binary --profile dev --root build/s3s-fs --target-dir build/s3s-fs/target
	rm -rf build/s3s-fs/target

# The client stacks that tests/e2e/test_stacks.py drives, each with the lock of its own kind. Tests of one whose tools are missing are skipped.
STACKS := tests/e2e/stacks

.PHONY: stacks
stacks: build/stacks/go/client build/stacks/node/client.mjs build/stacks/java/Client.class ## Build the client stacks' programs: needs go, npm, mvn.

build/stacks/go/client: $(wildcard $(STACKS)/go/*)
	cd $(STACKS)/go && go build -o $(CURDIR)/$@ .

build/stacks/node/client.mjs: $(wildcard $(STACKS)/node/*)
	@mkdir -p $(@D) && cp $(STACKS)/node/package.json $(STACKS)/node/package-lock.json $(@D)
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel=error
	@cp $(STACKS)/node/client.mjs $@

build/stacks/java/Client.class: $(wildcard $(STACKS)/java/*)
	@mkdir -p $(@D)/lib
	mvn -B -q -f $(STACKS)/java/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(@D)/lib
	cd $(@D)/lib && sha256sum -c --quiet $(CURDIR)/$(STACKS)/java/jars.sha256
	javac -Xlint:-options -cp '$(@D)/lib/*' -d $(@D) $(STACKS)/java/Client.java

# S3's servers and clients, for `tests/e2e/s3_matrix`: each with the lock of its own kind. What is missing is left out.
MATRIX := tests/e2e/s3_matrix
VERSITYGW := 1.8.0
build/versitygw/bin/versitygw:
	GOBIN=$(CURDIR)/$(@D) go install github.com/versity/versitygw/cmd/versitygw@v$(VERSITYGW)

# MinIO tags its releases by time, which is no version to Go.
MINIO := v0.0.0-20260212201848-7aac2a2c5b7c
build/minio/bin/minio:
	GOBIN=$(CURDIR)/$(@D) go install github.com/minio/minio@$(MINIO)

MC := v0.0.0-20250313080218-cf909e1063a9
build/mc/bin/mc:
	GOBIN=$(CURDIR)/$(@D) go install github.com/minio/mc@$(MC)

build/s3-matrix/go/client: $(wildcard $(MATRIX)/go/*)
	cd $(MATRIX)/go && go build -o $(CURDIR)/$@ .

build/s3-matrix/node/client.mjs: $(wildcard $(MATRIX)/node/*)
	@mkdir -p $(@D) && cp $(MATRIX)/node/package.json $(MATRIX)/node/package-lock.json $(@D)
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel=error
	@cp $(MATRIX)/node/client.mjs $@

build/s3-matrix/venv/bin/python: $(MATRIX)/python/requirements.txt $(STAMPS)/sync
	uv venv --quiet --clear --python $(BIN)/python build/s3-matrix/venv
	uv pip install --quiet --require-hashes --python $@ --requirement $<
	@touch $@

.PHONY: s3-matrix-short
s3-matrix-short: build/versitygw/bin/versitygw build/s3-matrix/go/client build/s3-matrix/node/client.mjs

MATRIX_ARGS :=

.PHONY: s3-matrix
s3-matrix: build ## Compare S3 clients before MinIO and versitygw, direct and through sigward. Needs go, npm, rclone, s3cmd, restic.
	-$(MAKE) -k s3-matrix-short build/minio/bin/minio build/mc/bin/mc build/s3-matrix/venv/bin/python
	$(BIN)/python -m tests.e2e.s3_matrix --json build/s3-matrix/differences.json $(MATRIX_ARGS)

# What renders deploy/kubernetes, for its tests; Go >= 1.24 builds both. Debian has neither.
KUSTOMIZE := 5.7.1
build/kustomize/bin/kustomize:
	GOBIN=$(CURDIR)/$(@D) go install sigs.k8s.io/kustomize/kustomize/v5@v$(KUSTOMIZE)

HELM := 3.19.0
build/helm/bin/helm:
	GOBIN=$(CURDIR)/$(@D) go install helm.sh/helm/v3/cmd/helm@v$(HELM)

.PHONY: renderers
renderers: $(RENDERERS)

# What both fronts' HTTP/2 is held against by tests/conformance/test_h2spec.py, which is skipped without it.
H2SPEC := 2.2.1+incompatible
build/h2spec/bin/h2spec:
	GOBIN=$(CURDIR)/$(@D) CGO_ENABLED=0 go install github.com/summerwind/h2spec/cmd/h2spec@v$(H2SPEC)

.PHONY: clean
clean: ## Remove all that make has made.
	rm -rf .venv target build python/sigward/_core*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(PYTHON) -name __pycache__ -type d -exec rm -rf {} +

# uv on PATH, or one of our own in build/uv. It installs what uv.lock says and never compiles: the project itself is maturin's.
$(STAMPS)/sync: uv.lock pyproject.toml .python-version
	@command -v cargo >/dev/null || { echo "cargo (Rust >= 1.88) is missing: get it from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler (cc) is missing: get it with \`apt-get install build-essential\` or your system's like" >&2; exit 1; }
	@command -v uv >/dev/null || { python=$$(sh .ci/find-python) && "$$python" -m venv build/uv && build/uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'; }
	@test -x $(BIN)/python && $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || { \
		if [ -x build/uv/bin/uv ]; then python=$$(sh .ci/find-python) && uv venv --quiet --clear --python "$$python" .venv; else uv venv --quiet --clear .venv; fi; }
	uv sync --quiet --frozen --no-install-project --extra demo --group dev --group docs --python $(BIN)/python
	@mkdir -p $(STAMPS) && touch $@

# All that the module needs is installed by now: offline, uv looks at what is there and fetches nothing that the lock file does not name.
$(STAMPS)/module: $(STAMPS)/sync $(RUST)
	UV_OFFLINE=1 $(BIN)/maturin develop --release --locked --uv
	@touch $@
