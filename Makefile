# Drawbridge. "make" prints what there is to make.

GO        ?= go
BIN       := bin/drawbridge
PREFIX    ?= /usr/local
# The machine's own and that of Debian 13, see test/engine.
ENGINES   := 20.10 26.1
# How long make fuzz lets each fuzzer run. Their stores are in memory: each commit waits for the disk otherwise.
FUZZTIME  ?= 30s
BACKENDS  := iptables nftables
# For how long things go wrong in each run of make soak.
SOAK_TIME ?= 3m
SUDO      := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Pairs of which each engine and each backend is in one.
PAIRS     := 20.10-iptables 26.1-nftables
# Tools are pinned in a module of their own, so that their dependencies are not ours.
TOOL      := $(GO) tool -modfile=tools/go.mod

# Goals depend on each other by order: tests need what deps installs.
.NOTPARALLEL:

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: ## Build bin/drawbridge, a static program
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN) ./cmd/drawbridge

.PHONY: plugin
plugin: build ## Build bin/plugin, the managed plugin (docker plugin create drawbridge bin/plugin)
	packaging/plugin/rootfs.sh $(BIN) bin/plugin/rootfs bin/debian
	install -m 0644 packaging/plugin/config.json bin/plugin/config.json

.PHONY: deps
deps: ## Install the Debian packages that tests and the demo need, and a Debian 13 beside
	$(SUDO) ./test/install.sh

.PHONY: demo
demo: deps build ## Show ufw decide over a published port, on a throw-away engine (needs root)
	$(GO) run ./test/demo -plugin $(CURDIR)/$(BIN)

.PHONY: bench
bench: deps build ## Measure against Docker's own bridge, into docs/benchmarks (needs root; BENCH_QUICK=1 for 3 minutes)
	CGO_ENABLED=0 $(GO) run ./bench -plugin $(CURDIR)/$(BIN) $(BENCH_FLAGS)

.PHONY: test
test: deps test-kernel test-faults test-engine test-package test-soak test-load ## Run tests of each kind (needs root; make check runs all)

# It shall be done in 40 minutes. So it has a share of the faults, each test once where two pairs of engine and backend have it, and each firewall
# of a host with one backend; on a machine of few cores half as much. Others each time: what is drawn is printed. make check has all.
SHARE     := $(if $(filter 1 2 3,$(shell nproc)),2,1)
test: export FAULTS_EVERY ?= $(if $(filter 2,$(SHARE)),12,6)
test: export ENGINE_EVERY ?= $(if $(filter 2,$(SHARE)),4,2)
test: export MATRIX_EVERY ?= 2

.PHONY: test-unit
test-unit: ## Tests that touch nothing of the machine
	$(GO) test ./...

.PHONY: fuzz
fuzz: ## Fuzz whatever reads foreign input, and the order of calls, for FUZZTIME (30s) each
	@grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' . | sed -E 's|/[^/]*:func | |' | sort | while read -r package name; do \
		echo "fuzz: $$package $$name"; \
		GOTMPDIR="$${TMPDIR:-/tmp}" TMPDIR=/dev/shm $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x -parallel 2 "$$package" || exit 1; \
	done

.PHONY: test-kernel
test-kernel: ## Unit tests, and tests with real packets and rules in network namespaces (needs root)
	$(GO) test -count=1 -timeout 40m -tags kernel ./...

.PHONY: test-faults
test-faults: ## Kill the daemon, or have it fail, at every effect, and look what becomes of it (needs root)
	$(GO) test -count=1 -tags faults ./internal/effect
	$(GO) test -count=1 -tags kernel,faults -timeout 40m -run TestFaults -v ./cmd/drawbridge

.PHONY: test-engine
test-engine: build plugin ## Tests with real dockerds, D-Bus and firewalld in namespaces (needs root)
	@failed=; ENGINES='$(ENGINES)' BACKENDS='$(BACKENDS)' PAIRS='$(PAIRS)' DRAWBRIDGE_BIN=$(CURDIR)/$(BIN) ./test/engine.sh || failed=engine; \
	for pair in $(PAIRS); do \
		echo "test-engine: docker $${pair%-*}, $${pair#*-}, managed plugin"; \
		DRAWBRIDGE_ENGINE=$${pair%-*} DRAWBRIDGE_BACKEND=$${pair#*-} DRAWBRIDGE_PLUGIN=$(CURDIR)/bin/plugin \
			$(GO) test -count=1 -parallel 3 -timeout 40m -tags engine ./test/managed || failed="$$failed $$pair-managed"; \
	done; \
	DRAWBRIDGE_BIN=$(CURDIR)/$(BIN) $(GO) test -count=1 -p 2 -parallel 5 -timeout 40m -tags engine ./test/lab/... ./test/demo ./test/docs ./test/hostfirewall ./test/systemd || failed="$$failed lab"; \
	[ -z "$$failed" ] || { echo "test-engine: failed:$$failed"; exit 1; }

# One combination for a short time: the environment says which. test/soak says what else can be set.
.PHONY: test-soak
test-soak: build ## A short soak, with the engine and backend that DRAWBRIDGE_ENGINE and DRAWBRIDGE_BACKEND name (needs root)
	DRAWBRIDGE_ENGINE=$${DRAWBRIDGE_ENGINE:-26.1} DRAWBRIDGE_BACKEND=$${DRAWBRIDGE_BACKEND:-nftables} DRAWBRIDGE_BIN=$(CURDIR)/$(BIN) \
		$(GO) test -count=1 -v -timeout 40m -tags engine ./test/soak

.PHONY: soak
soak: deps build ## Minutes of random faults under traffic on each engine and backend (needs root; SOAK_TIME=20m for more, SOAK_SEED=n for the same again)
	@failed=; for engine in $(ENGINES); do for backend in $(BACKENDS); do \
		echo "soak: docker $$engine, $$backend"; \
		SOAK_TIME=$(SOAK_TIME) DRAWBRIDGE_ENGINE=$$engine DRAWBRIDGE_BACKEND=$$backend DRAWBRIDGE_BIN=$(CURDIR)/$(BIN) \
			$(GO) test -count=1 -v -timeout 0 -tags engine ./test/soak || failed="$$failed $$engine-$$backend"; \
	done; done; \
	[ -z "$$failed" ] || { echo "soak: failed:$$failed"; exit 1; }

# One combination: the environment says which. cgo, because the race detector needs it.
.PHONY: test-load
test-load: build ## Containers and networks all at once, on a daemon with the race detector and on one without (needs root; LOAD_CONTAINERS=200 for the whole)
	CGO_ENABLED=1 $(GO) build -race -trimpath -o $(BIN)-race ./cmd/drawbridge
	for bin in $(BIN)-race $(BIN); do \
		LOAD_CONTAINERS=$${LOAD_CONTAINERS:-24} DRAWBRIDGE_ENGINE=$${DRAWBRIDGE_ENGINE:-20.10} DRAWBRIDGE_BACKEND=$${DRAWBRIDGE_BACKEND:-iptables} \
			DRAWBRIDGE_BIN=$(CURDIR)/$$bin $(GO) test -count=1 -v -timeout 40m -tags load ./test/load || exit 1; \
	done

# Everything else runs on the kernel of the machine that it is started on.
.PHONY: test-vm
test-vm: ## What Drawbridge does on Debian 12's kernel, and what it says where a module is missing, in an emulated machine (needs root; a quarter of an hour)
	$(GO) test -count=1 -v -timeout 0 -tags vm ./test/vm

.PHONY: check
check: deps fmt-check vet lint race test-kernel test-faults test-engine test-package test-soak test-load ## All tests with the race detector, formatting, vet and lint

.PHONY: fmt
fmt: ## Format the code
	$(TOOL) gofumpt -w $$(git ls-files '*.go')

.PHONY: fmt-check
fmt-check:
	@out=$$($(TOOL) gofumpt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not formatted (make fmt):"; echo "$$out"; exit 1; }

.PHONY: vet
vet: ## Run go vet over all build tags
	$(GO) vet -tags kernel,engine,load,vm ./...
	$(GO) vet -tags kernel,faults ./...

.PHONY: lint
lint: ## Run golangci-lint
	$(TOOL) golangci-lint run --build-tags kernel,engine,faults,load,vm ./...

.PHONY: race
race: ## Run the unit tests with the race detector
	$(GO) test -race ./...

.PHONY: docs
docs: deps ## Write the generated parts of the documentation and the expected rules anew (needs root)
	$(GO) test -count=1 ./cmd/drawbridge -run "TestDocumentation|TestManagedPlugin" -update
	$(GO) test -count=1 ./firewall/iptables ./firewall/nftables -run TestGolden -update
	$(GO) test -count=1 -tags kernel ./firewall/iptables -run TestDocumentation -update

# Where administrators' units are; a package sets /usr/lib/systemd/system.
UNITDIR   ?= /etc/systemd/system
UNITS     := drawbridge.socket drawbridge.service drawbridge-relay.socket drawbridge-relay.service

.PHONY: install
install: build ## Install the program and its systemd units (PREFIX, UNITDIR, DESTDIR)
	install -D -m 0755 $(BIN) $(DESTDIR)$(PREFIX)/sbin/drawbridge.new
	mv -f $(DESTDIR)$(PREFIX)/sbin/drawbridge.new $(DESTDIR)$(PREFIX)/sbin/drawbridge
	for unit in $(UNITS); do \
		install -D -m 0644 packaging/$$unit $(DESTDIR)$(UNITDIR)/$$unit && \
		sed -i 's|/usr/local/sbin|$(PREFIX)/sbin|' $(DESTDIR)$(UNITDIR)/$$unit || exit 1; \
	done
	@[ -n '$(DESTDIR)' ] || echo 'Now: systemctl daemon-reload && systemctl enable drawbridge && systemctl restart drawbridge'

.PHONY: uninstall
uninstall: ## Stop Drawbridge, take what it made off the host and remove its files (FORCE=1 though containers are attached)
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' UNITDIR='$(UNITDIR)' FORCE='$(FORCE)' ./packaging/uninstall.sh

# Version and date are the commit's; VERSION=1.2.3 names another. Errors and warnings of lintian count where it is installed.
.PHONY: package
package: ## Build the Debian packages for amd64 and arm64 into dist/, with the version of the commit or VERSION=1.2.3
	packaging/debian/build.sh amd64 arm64

.PHONY: test-package
test-package: ## Build the package twice, and install, upgrade, remove and purge it on throw-away hosts (needs root)
	$(GO) test -count=1 -timeout 40m -tags engine ./test/package

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin dist
