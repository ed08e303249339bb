# `make help` lists what there is. Tools are pinned below hack/tools and built into a cache by hack/ensure-tools.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
IMG ?= nexus-webhooks:$(VERSION)
GO_LDFLAGS := -s -w -X main.version=$(VERSION)

# The cache of hack/ensure-tools. It reads the same variable.
NEXUS_WEBHOOKS_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/nexus-webhooks
export NEXUS_WEBHOOKS_CACHE
TOOLS := $(NEXUS_WEBHOOKS_CACHE)/bin

# kube-apiserver, etcd and kubectl: yours where KUBEBUILDER_ASSETS is set, else the ones that are built here.
ASSETS := $(or $(KUBEBUILDER_ASSETS),$(TOOLS))
KUBECTL ?= $(ASSETS)/kubectl
RENDER = $(KUBECTL) kustomize config/default | sed 's|image: nexus-webhooks:.*|image: $(IMG)|'

TEST ?= ./...
# -count=1: tests run binaries of bin/, Redis and PostgreSQL, which Go's cache of results does not see.
TEST_FLAGS ?= -race -count=1 -timeout=20m

##@ General

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN { FS = ":.*##"; print "Usage: make TARGET" } \
	  /^[a-z-]+:.*##/ { printf "  %-18s %s\n", $$1, $$2 } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) }' $(MAKEFILE_LIST)

##@ Try

.PHONY: quickstart
quickstart: build ## Run everything on this machine: API server, Redis, manager, dispatcher and a demo (Ctrl-C ends it).
	@hack/ensure-tools kubernetes etcd
	@exec bin/quickstart --assets=$(ASSETS) --bin=bin --data=.quickstart $(QUICKSTART_FLAGS)

##@ Develop

.PHONY: generate
generate: ## Generate the DeepCopy methods.
	@hack/ensure-tools controller-gen
	$(TOOLS)/controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: manifests
manifests: ## Generate the CRD and the manager's ClusterRole from their markers.
	@hack/ensure-tools controller-gen
	$(TOOLS)/controller-gen crd paths=./api/... output:crd:artifacts:config=config/crd/bases
	$(TOOLS)/controller-gen rbac:roleName=manager-role paths=./controllers/... output:rbac:artifacts:config=config/rbac

.PHONY: fmt
fmt: ## Format the Go code.
	@hack/ensure-tools golangci-lint
	$(TOOLS)/golangci-lint fmt

.PHONY: vet
vet: ## Run go vet.
	go vet ./...

.PHONY: lint
lint: ## Run the linters of .golangci.yml, which also hold the import boundaries.
	@hack/ensure-tools golangci-lint
	$(TOOLS)/golangci-lint run --timeout=20m

.PHONY: verify
verify: ## Regenerate everything, run every check, and fail on any difference or stray file in the tree.
	@hack/verify

##@ Test

.PHONY: test
test: build ## Run all tests, with the race detector, against a real API server, Redis and PostgreSQL.
	@hack/ensure-packages
	@hack/ensure-tools kubernetes etcd
	@echo "test: go test $(TEST_FLAGS) $(TEST) (API server and etcd of $(ASSETS), $$(redis-server --version | cut -d ' ' -f 1-3))"
	@KUBEBUILDER_ASSETS=$(ASSETS) hack/test '$(TEST)' $(TEST_FLAGS)

.PHONY: test-faults
test-faults: build ## Break one part after another under load, a minute each, and show that nothing is lost.
	@hack/ensure-packages
	@hack/ensure-tools kubernetes etcd
	@KUBEBUILDER_ASSETS=$(ASSETS) go test -count=1 -timeout=60m -v ./test/faults -args -fault-time=1m

SOAK_TIME ?= 20m
.PHONY: soak
soak: build ## Work at half of what this machine can do for SOAK_TIME (20m), and show that nothing grows or goes wrong.
	@hack/ensure-packages redis-server
	@hack/ensure-tools kubernetes etcd
	@KUBEBUILDER_ASSETS=$(ASSETS) go test -count=1 -timeout=2h -v -run='^TestSoak$$' ./test/faults -args -soak-time=$(SOAK_TIME)

.PHONY: bench
bench: ## Measure speed and cost beside the bare HTTP client (13 minutes; BENCH_FLAGS="--only throughput": one).
	@hack/ensure-packages redis-server
	@hack/ensure-tools kubernetes etcd
	@KUBEBUILDER_ASSETS=$(ASSETS) go run ./test/bench $(BENCH_FLAGS)

BASELINE ?= test/bench/baseline.json

.PHONY: bench-compare
bench-compare: ## The same, and fail where a ratio is more than 15 % worse than that of BASELINE.
	@$(MAKE) --no-print-directory bench BENCH_FLAGS="--compare $(BASELINE) $(BENCH_FLAGS)"

##@ Build

.PHONY: build
build: ## Build bin/manager, bin/dispatcher and bin/quickstart.
	@hack/build '$(GO_LDFLAGS)'

.PHONY: docker-build
docker-build: ## Build the container image IMG, which holds manager and dispatcher.
	docker build --build-arg VERSION=$(VERSION) --tag $(IMG) .

.PHONY: build-installer
build-installer: ensure-kubectl ## Write dist/install.yaml: all that `make deploy` applies, with the image IMG.
	@mkdir -p dist
	@$(RENDER) >dist/install.yaml
	@echo "build-installer: dist/install.yaml"

.PHONY: sbom
sbom: build ## Write dist/manager.cdx.json and dist/dispatcher.cdx.json: what is in the programs, in CycloneDX's form.
	@hack/ensure-tools cyclonedx-gomod
	@mkdir -p dist
	@for program in manager dispatcher; do \
	  $(TOOLS)/cyclonedx-gomod bin -json -std -version $(VERSION) -output dist/$$program.cdx.json bin/$$program; \
	  go version -m bin/$$program | awk '$$1 == "dep" { print "pkg:golang/" $$2 "@" $$3 }' | while read -r part; do \
	    grep -q "\"$$part[?\"]" dist/$$program.cdx.json || { echo "sbom: $$part is in bin/$$program and not listed"; exit 1; }; \
	  done; \
	  echo "sbom: dist/$$program.cdx.json"; \
	done

##@ Deploy to the cluster of your kubeconfig

.PHONY: install
install: ensure-kubectl ## Install the CRD.
	$(KUBECTL) apply --server-side -k config/crd

.PHONY: uninstall
uninstall: ensure-kubectl ## Remove the CRD, and with it every subscription.
	$(KUBECTL) delete --ignore-not-found -k config/crd

.PHONY: deploy
deploy: ensure-kubectl ## Deploy manager and dispatcher with the image IMG. Redis is yours: config/dispatcher says where.
	$(RENDER) | $(KUBECTL) apply --server-side -f -

.PHONY: undeploy
undeploy: ensure-kubectl ## Remove what deploy made: with the CRD goes every subscription.
	$(KUBECTL) delete --ignore-not-found -k config/default

.PHONY: ensure-kubectl
ensure-kubectl:
	@[[ -x "$$(command -v $(KUBECTL))" ]] || hack/ensure-tools kubernetes
