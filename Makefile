# GNU make; `make` alone lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

BENCH    ?= .
COUNT    ?= 1
# Of each fuzz target, as of -fuzztime: a number of inputs, since a time that runs out
# on a busy machine may be reported as a failure (go.dev/issue/48157).
FUZZTIME ?= 300x

# Where the tables of bench-peers go, as lines of JSON and as a page of HTML.
BENCH_OUT   ?= bin/bench
BENCH_FLAGS ?=

# The registry of zero-drop, and how many calls it makes.
STORE           ?= memory
ZERO_DROP_CALLS ?= 200000

# How many calls migrate-proof makes. A million calls are the full run.
MIGRATE_PROOF_CALLS ?= 100000

# The tests of backend/etcd and backend/consul that also run without the race detector.
UNRACED := ^Test(Conformance|Faults|Wiped|RegistrationReturns|AgentStopped|BlackHole)$$

# The registries that the tests start. etcd 3.4 is the oldest etcd that has to work.
SERVERS := bin/etcd bin/etcd34 bin/consul

# Modules below the root. The root, the tools, the bench and interop are built without
# go.work, as they are by others; the rest needs it to be built against this tree.
NESTED  := $(filter-out tools/% interop/%,$(patsubst %/go.mod,%,$(wildcard */*/go.mod)))
CONTRIB := $(filter contrib/%,$(NESTED))
ALONE   := bench interop $(patsubst %/go.mod,%,$(wildcard interop/*/go.mod tools/*/go.mod))

# The public database of checksums does not have the registries of kratos; go.sum has.
export GONOSUMDB := github.com/go-kratos/*

export GOWORK := off
# With this set, a test that finds no server fails instead of being skipped.
export NAMING_SERVERS := required

# $(call nested,COMMAND,MODULES) runs COMMAND in each of the modules, by default in each
# nested module.
nested = for m in $(or $(2),$(NESTED)); do echo "== $$m"; \
	(cd $$m; export GOWORK=$(CURDIR)/go.work; $(1)); done

# $(call tidy,FLAGS,COMMAND) runs go mod tidy FLAGS in each module. One that is
# built with go.work may require versions of the root and of other nested modules
# that are not published yet, and tidy does not look at go.work: there it tidies a
# copy of go.mod that points to this tree, then runs COMMAND with the result in $$tmp.
tidy = tmp=$$(mktemp -d); trap 'rm -rf $$tmp' EXIT; root=github.com/naming-go/naming; \
	for m in . $(ALONE); do echo "tidy $$m"; (cd $$m; go mod tidy $(1)); done; \
	for m in $(NESTED); do echo "tidy $$m"; (cd $$m; cp go.mod go.sum $$tmp; \
		go mod edit -replace $$root=$(CURDIR) \
			$(foreach n,$(NESTED),-replace $$root/$(n)=$(CURDIR)/$(n)) $$tmp/go.mod; \
		go mod tidy -modfile=$$tmp/go.mod; \
		go mod edit -dropreplace $$root $(foreach n,$(NESTED),-dropreplace $$root/$(n)) $$tmp/go.mod; \
		$(2)); done

.PHONY: help setup test check prose rules tidy tidy-check full bench bench-baseline bench-peers cover fuzz demo demo-migration picture balance zero-drop http-proof migrate-proof servers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-16s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what the tests need besides Go and make, or say how
	@scripts/setup.sh

# One package at a time under the race detector: the bounds of the tests on real servers
# are for a machine that does nothing else.
#
# Then without the race detector: it slows the code down, and so it hides faults that
# need the code's own timing. The tests with mutants are left out, as they build and
# test each mutant without the race detector in any case. Of the two backends with
# servers, the contract and the faults are enough. Their tests mostly wait, so they run
# beside each other, as the tests of the modules below contrib do.
test: setup $(SERVERS) ## vet and test every module under the race detector, and the backends without
	go vet ./...
	go test -race -count=1 -p 1 -timeout 30m ./...
	go test -count=1 -p 1 -timeout 30m -skip Mutants . ./conformance ./backend/memory
	go test -count=1 -p 2 -timeout 30m -parallel 8 -run '$(UNRACED)' ./backend/etcd ./backend/consul
	@$(call nested,go vet ./...; go test -race -count=1 -timeout 30m ./...,$(filter-out $(CONTRIB),$(NESTED)))
	@printf '%s\n' $(CONTRIB) | GOWORK=$(CURDIR)/go.work xargs -P 5 -I{} sh -c \
		'cd {} && go test -race -count=1 -timeout 30m ./...'
	cd bench && go vet ./... && go test -race -count=1 -p 1 -timeout 30m ./...
	cd interop && go vet ./... && go test -race -count=1 -timeout 30m ./...

check: tidy-check prose rules bin/staticcheck ## gofmt, vet, staticcheck, tidiness of go.mod and go.sum, prose, rules
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "not gofmt-ed:"; echo "$$out"; exit 1; fi
	go vet ./...
	bin/staticcheck ./...
	@for m in bench interop interop/peer interop/etcdnaming; do echo "== $$m"; \
		(cd $$m; go vet ./...; $(CURDIR)/bin/staticcheck ./...); done
	cd interop/old && go vet ./...
	@$(call nested,go vet ./...; $(CURDIR)/bin/staticcheck ./...)

prose: ## phrases, long functions and unguarded fields, in tests and Markdown too
	go run ./tools/prose -all

# The result is not taken from the cache: it depends on files outside of the module.
rules: ## test the alerting rules of observe/prometheus with Prometheus' engine
	cd tools/prometheus && go test -count=1 ./...

tidy-check:
	@$(call tidy,-diff,diff -u go.mod $$tmp/go.mod; diff -u go.sum $$tmp/go.sum)

tidy: ## tidy go.mod and go.sum of every module
	@$(call tidy,,cp $$tmp/go.mod $$tmp/go.sum .)

full: setup $(SERVERS) ## the tests at full length; takes long
	NAMING_FULL=1 go test -race -count=1 -p 1 -v -timeout 240m ./...
	cd interop && NAMING_FULL=1 go test -race -count=1 -v -timeout 60m ./...

bench: $(SERVERS) bin/benchstat ## the library's own benchmarks beside bench/baseline.txt: BENCH=regexp COUNT=runs
	@mkdir -p $(BENCH_OUT)
	@go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) -timeout 60m ./... | tee $(BENCH_OUT)/bench.txt
	@bin/benchstat bench/baseline.txt $(BENCH_OUT)/bench.txt

# Run it on an idle machine, before a change that later runs are compared with.
bench-baseline: bench ## make the last of these runs the baseline
	@grep -v '^ok\|no test files' $(BENCH_OUT)/bench.txt > bench/baseline.txt

bench-peers: $(SERVERS) ## other libraries side by side, 10 minutes; results in BENCH_OUT, BENCH_FLAGS=-full for all
	@mkdir -p $(BENCH_OUT)
	cd bench && go run . -out $(abspath $(BENCH_OUT)) $(BENCH_FLAGS)

cover: ## fail if the root or backend/memory is covered by less than 90 %
	@go test -count=1 -cover . ./backend/memory | awk '{print} \
		/coverage:/ {sub(/.*coverage: /, ""); n++; if ($$1+0 < 90) low++} \
		END {if (n < 2 || low) {print "coverage below 90 %"; exit 1}}'

# The packages are found by their sources: to list the targets of all would compile
# the tests of all.
fuzz: ## fuzz each target of the root module for FUZZTIME (a number of inputs, 300x; or a time, 30s)
	@grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n 1 dirname | sort -u | while read -r p; do \
		[ "$$(cd $$p && go list -m)" = github.com/naming-go/naming ] || continue; \
		for f in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' $$p/*_test.go); do \
			echo "== $$p $$f"; \
			go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$p; \
		done; \
	done

demo: ## run the quickstart
	go run ./examples/quickstart

demo-migration: ## move a service from one registry to another and back, in half a minute
	go run ./examples/migration

picture: balance ## run the demonstrations and make balance, and draw the pictures in docs of their output
	go run ./tools/termsvg -o docs/quickstart.svg go run ./examples/quickstart
	go run ./tools/termsvg -o docs/migration.svg go run ./examples/migration

# Run it on a machine that does nothing else: the latencies are for the page.
balance: ## measure the load balancing policies, and write the tables and the picture of docs/balancing.md
	go run ./internal/balanceproof/cmd -page docs/balancing.md -picture docs/balancing.svg

zero-drop: $(filter bin/$(STORE),bin/etcd bin/consul) ## real calls while everything fails: STORE=memory|etcd|consul ZERO_DROP_CALLS=number
	@go run ./internal/zerodrop/cmd -store $(STORE) -calls $(ZERO_DROP_CALLS)

http-proof: bin/etcd ## real HTTP requests while servers restart and etcd fails, beside a static transport
	@go run ./internal/httpproof/cmd -store etcd

migrate-proof: bin/etcd bin/consul ## real calls while services move between registries: MIGRATE_PROOF_CALLS=number
	@go run ./internal/migrateproof/cmd -calls $(MIGRATE_PROOF_CALLS)

servers: $(SERVERS) ## build the registries that the tests start

clean: ## remove what make built
	rm -rf bin

# The tools, at the versions their modules pin.
bin/etcd:        PKG = go.etcd.io/etcd/server/v3
bin/etcd34:      PKG = go.etcd.io/etcd
bin/consul:      PKG = github.com/hashicorp/consul
bin/staticcheck: PKG = honnef.co/go/tools/cmd/staticcheck
bin/benchstat:   PKG = golang.org/x/perf/cmd/benchstat

bin/etcd: tools/etcd/go.mod tools/etcd/go.sum
bin/etcd34: tools/etcd34/go.mod tools/etcd34/go.sum
bin/consul: tools/consul/go.mod tools/consul/go.sum
bin/staticcheck bin/benchstat: tools/lint/go.mod tools/lint/go.sum

bin/etcd bin/etcd34 bin/consul bin/staticcheck bin/benchstat:
	cd $(<D) && go build -o $(CURDIR)/$@ $(PKG)
