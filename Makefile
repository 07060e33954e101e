# Kiloraft's targets. A fresh machine needs Go and make, nothing else:
# `make demo` and `make test` fetch and build all there is to fetch and build.
.DEFAULT_GOAL := help
.PHONY: help build demo test e2e race sim sim-planted chaos lint generate bench bench-elastic fuzz badinput crash soak clean

GO        ?= go
VERSION   ?= 0.1.0
# Absent outside a git checkout; the binary then reports its version alone.
COMMIT    ?= $(shell git rev-parse --short HEAD 2>/dev/null)
LDFLAGS   := -X main.version=$(VERSION) -X main.commit=$(COMMIT)
GOTOOL    := $(GO) tool -modfile=tools/go.mod
# Options of one run, e.g. make demo ARGS='--nodes 5', make test ARGS='-run Key'.
ARGS      ?=
FUZZTIME  ?= 10s
BENCHTIME ?= 20s
SEEDS     ?= 500
START     ?= 1

help: ## list the targets (the default)
	@echo 'Kiloraft: a sharded, strongly consistent, ordered key-value store.'
	@echo
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target text; do printf '  make %-13s %s\n' "$$target" "$$text"; done

build: ## build bin/kiloraft
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/kiloraft ./cmd/kiloraft

demo: build ## build, then run a three-node cluster in a temporary folder until Ctrl-C
	@bin/kiloraft demo $(ARGS)

test: ## run every test
	$(GO) test $(ARGS) ./...

e2e: ## run the tests with real processes alone
	$(GO) test -count=1 $(ARGS) ./e2e/...

race: ## run every test under the race detector (needs a C compiler)
	$(GO) test -race $(ARGS) ./...

sim: ## simulate SEEDS (500) whole clusters from seed START (1) on, or replay SEED=n and tell what happened (TRACE=file: everything)
	@$(GO) test -c -o bin/sim.test ./sim
	@bin/sim.test $(if $(SEED),-sim.seed=$(SEED) $(if $(TRACE),-sim.trace=$(abspath $(TRACE))),-sim.seeds=$(SEEDS) -sim.start=$(START))

sim-planted: ## plant known bugs, one at a time, and show which seed and which check catch them (BUG=part of a name)
	$(GO) test -tags planted -count=1 -run '^TestPlantedBugs$$' ./shard/machine ./shard/replica ./raftgroup
	@$(GO) test -tags planted -c -o bin/sim-planted.test ./sim
	@bin/sim-planted.test -sim.planted -sim.only='$(BUG)'

chaos: build ## run real processes under fire for DURATION (60s), drawn from SEED, on NODES (5) nodes
	$(GO) build -trimpath -o bin/chaos ./chaos
	@bin/chaos --duration $(or $(DURATION),60s) --seed $(or $(SEED),0) --nodes $(or $(NODES),5) $(ARGS)

lint: ## gofmt, go vet, staticcheck and the house rules
	@unformatted="$$(gofmt -l .)" && \
	  if [ -n "$$unformatted" ]; then echo "gofmt is needed on:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	cd tools && $(GO) vet ./...
	$(GOTOOL) staticcheck ./...
	$(GO) test -count=1 ./internal/lint/...

generate: ## reproduce the generated code with pinned tools
	$(GO) generate ./...

bench: build ## puts and gets on a three-node cluster with 48 shards
	bin/kiloraft demo --nodes 3 --shards 48 --exec 'kiloraft bench put --clients 256 --duration $(BENCHTIME)'
	bin/kiloraft demo --nodes 3 --shards 48 --exec 'kiloraft bench get --load --clients 256 --duration $(BENCHTIME)'

bench-elastic: build ## what splits, moves and a new node cost: PART (churn,spread,join), DURATION (60s) of the churn, SIZE (2) GiB to join
	$(GO) build -trimpath -o bin/elastic ./bench/elastic
	@bin/elastic $(if $(PART),-part $(PART)) $(if $(DURATION),-duration $(DURATION)) $(if $(SIZE),-size $(SIZE)) $(ARGS)

fuzz: ## run every fuzz test: DURATION together, or FUZZTIME (10s) each
	@$(GO) build -C tools -o $(CURDIR)/bin/fuzz ./fuzz
	@bin/fuzz $(if $(DURATION),-duration $(DURATION),-each $(FUZZTIME)) $(ARGS)

badinput: ## feed a real node bad input over every way in
	$(GO) test ./e2e -count=1 -v -run '^TestBadInput$$' $(ARGS)

crash: ## take the power away at every operation on a disk, in STORIES (5) stories
	KILORAFT_CRASH_SEEDS=$(or $(STORIES),5) $(GO) test ./raftgroup -count=1 -v -run '^TestCrashPoints$$' $(ARGS)

soak: ## rounds of simulation, crashes, chaos and fuzzing with fresh seeds, for HOURS (8)
	@tools/soak $(or $(HOURS),8)

clean: ## remove what build made
	rm -rf bin
