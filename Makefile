# Bare `make` prints this list.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
GO      ?= go

# Packages that need no server.
UNIT = $(shell $(GO) list ./... | grep -v -e /internal/stack -e /test/)

.DEFAULT_GOAL := help
.PHONY: help build unit test lint bench model chaos demo demo-kafka generate clean compiler FORCE

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: bin/unstale ## build bin/unstale, one static binary (the first time, with PostgreSQL's parser, takes minutes)

# PostgreSQL's parser is C. netgo and osusergo keep what a static C library has not.
bin/unstale: FORCE | compiler
	@CGO_ENABLED=1 $(GO) build -trimpath -tags netgo,osusergo -ldflags '$(LDFLAGS) -linkmode external -extldflags -static' -o $@ ./cmd/unstale

demo: build ## a shop, its database and its cache, live in this terminal (ARGS="--for 20s --json")
	@bin/unstale demo $(ARGS)

demo-kafka: build ## the same through Debezium, Kafka and a schema registry (ARGS="--for 20s --json")
	@bin/unstale demo --kafka $(ARGS)

unit: compiler ## the tests that need no server
	$(GO) test -race -run '^(Test|Fuzz)' $(UNIT)

test: lint unit ## everything: lint, unit tests, real PostgreSQL and Redis (fetched if they are missing)
	$(GO) test -timeout 20m . ./internal/stack ./test/...

lint: compiler ## gofmt, go vet, staticcheck
	@files=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$files" ]; then echo "not gofmt'ed: $$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

bench: build ## throughput and latency beside their limits (ARGS="-quick")
	@$(GO) run ./test/bench $(ARGS)

chaos: compiler ## break everything under load, longer than the tests do (SEED=1 MINUTES=5 FAULTS=kill,ddl)
	@$(GO) run ./test/chaos -seed $(or $(SEED),0) -minutes $(or $(MINUTES),5) -faults '$(FAULTS)'

model: ## every order of events in small worlds that run the real scripts (ARGS="-only sweeps")
	@$(GO) run ./test/model $(ARGS)

generate: ## the JSON Schema of the configuration and its reference
	$(GO) generate ./...

clean: ## remove what was built
	rm -rf bin

compiler:
	@scripts/install-compiler
