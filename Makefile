# Chores of the repository; "make test" and "make demo" are the two that matter.
export CGO_ENABLED = 0
export PATH := $(PATH):/usr/local/go/bin
export VERSION ?= 5.0.0
export PREFIX ?= /usr/local
export SYSCONFDIR ?= $(PREFIX)/etc
export LOCALSTATEDIR ?= $(PREFIX)/var
export DESTDIR ?=
export SUID ?=
export VERIFY_USER ?= singularity-verify
export BIN ?= bin
FUZZTIME ?= 10s

X       = -X singularity/conf.Version=$(VERSION) -X singularity/conf.Prefix=$(PREFIX) \
	-X singularity/linux/entry.helper=$(PREFIX)/libexec/singularity/bin/starter-suid \
	-X singularity/conf.sysconfdir=$(SYSCONFDIR) -X singularity/conf.localstatedir=$(LOCALSTATEDIR)
# The programs that start containers begin before the Go runtime; see
# linux/entry. Other processors than amd64 have no stub.
ENTRY   = $(if $(filter amd64,$(shell go env GOARCH)),-E singularity_entry)
SUIDENTRY = $(if $(filter amd64,$(shell go env GOARCH)),-E starter_entry)
BUILD   = go build -trimpath -buildvcs=false

.PHONY: build demo demo-server test unit e2e test-vm vm lint fuzz bench install install-suid uninstall package package-test release release-test clean

build:
	$(BUILD) -ldflags '-s -w $(ENTRY) $(X)' -o $(BIN)/ ./cmd/singularity
	$(BUILD) -ldflags '-s -w $(ENTRY) $(X)' -o $(BIN)/ ./cmd/singularity-cli
	$(BUILD) -ldflags '-s -w $(ENTRY) $(X)' -o $(BIN)/ ./cmd/singularity-unlock
	$(BUILD) -ldflags '-s -w $(X)' -o $(BIN)/ ./cmd/starter-verify
	$(BUILD) -ldflags '-s -w $(X)' -o $(BIN)/ ./cmd/starter-network
	$(BUILD) -tags starter -ldflags '-s -w $(SUIDENTRY) $(X)' -o $(BIN)/ ./cmd/starter-suid
	$(BUILD) -ldflags '-s -w $(X)' -o $(BIN)/ ./cmd/singularity-server

demo:
	e2e/need demo
	e2e/demo

demo-server:
	e2e/need demo-server
	e2e/demo-server

test:
	e2e/need test
	$(MAKE) lint unit e2e package-test
	e2e/demo-server
	VM_BUDGET=1200 e2e/vm/run

unit:
	SINGULARITY_TEST_VERSITYGW=$$(e2e/versitygw/build) SINGULARITY_TEST_FERRETDB=$$(e2e/mongodb/build) e2e/count go test -v ./...
	cd e2e/oracle && ../count go test -v ./...
	cd e2e/browser && ../count go test -v ./...

e2e: build
	e2e/run

test-vm vm:
	e2e/vm/run

lint: build
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	@if command -v staticcheck >/dev/null; then staticcheck ./...; else echo "staticcheck is not installed: not run"; fi

fuzz:
	@for p in $$(go list ./...); do for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	  echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x $$p || exit 1; done; done

bench: build
	e2e/need bench
	go run ./bench $(BENCH)

# SUID=1 installs the setuid helper too.
install: build
	package/install

install-suid: build
	SUID=1 package/install

uninstall:
	package/uninstall

package:
	package/build

package-test:
	package/test

release:
	release/build

release-test:
	release/test

clean:
	rm -rf bin
