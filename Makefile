# Chores of the repository; "make test" and "make demo" are the two that matter.
export CGO_ENABLED = 0
export PATH := $(PATH):/usr/local/go/bin
VERSION ?= 5.0.0
PREFIX  ?= /usr/local
DESTDIR ?=
FUZZTIME ?= 10s

X       = -X singularity/conf.Version=$(VERSION) -X singularity/conf.Prefix=$(PREFIX) \
	-X singularity/linux/entry.helper=$(PREFIX)/libexec/singularity/bin/starter-suid
# The programs that start containers begin before the Go runtime; see
# linux/entry. Other processors than amd64 have no stub.
ENTRY   = $(if $(filter amd64,$(shell go env GOARCH)),-E singularity_entry)
SUIDENTRY = $(if $(filter amd64,$(shell go env GOARCH)),-E starter_entry)
BUILD   = go build -trimpath -buildvcs=false
LIBEXEC = $(DESTDIR)$(PREFIX)/libexec/singularity/bin
SHARE   = $(DESTDIR)$(PREFIX)/share
ETC     = $(DESTDIR)$(PREFIX)/etc/singularity

.PHONY: build demo test unit e2e vm lint fuzz bench install install-suid clean

build:
	$(BUILD) -ldflags '-s -w $(ENTRY) $(X)' -o bin/ ./cmd/singularity
	$(BUILD) -ldflags '-s -w $(ENTRY) $(X)' -o bin/ ./cmd/singularity-cli
	$(BUILD) -ldflags '-s -w $(X)' -o bin/ ./cmd/starter-verify
	$(BUILD) -ldflags '-s -w $(SUIDENTRY) $(X)' -o bin/ ./cmd/starter-suid
	$(BUILD) -ldflags '-s -w $(X)' -o bin/ ./cmd/singularity-server

demo:
	e2e/need demo
	e2e/demo

test:
	e2e/need test
	$(MAKE) lint unit e2e

unit:
	e2e/count go test -v ./...
	cd e2e/oracle && ../count go test -v ./...
	cd e2e/browser && ../count go test -v ./...

e2e: build
	e2e/run

vm:
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

install: build
	install -D -m 755 bin/singularity $(DESTDIR)$(PREFIX)/bin/singularity
	install -D -m 755 bin/singularity-server $(DESTDIR)$(PREFIX)/bin/singularity-server
	install -D -m 755 cmd/singularity/run-singularity $(DESTDIR)$(PREFIX)/bin/run-singularity
	install -D -m 755 bin/singularity-cli $(LIBEXEC)/singularity-cli
	install -D -m 711 bin/starter-verify $(LIBEXEC)/starter-verify
	install -d $(ETC) $(ETC)/network $(SHARE)/man/man1
	test -e $(ETC)/singularity.conf || bin/singularity-cli docs conf > $(ETC)/singularity.conf
	install -D -m 644 container/seccomp/default.json $(ETC)/seccomp-profiles/default.json
	for f in nvliblist.conf rocmliblist.conf; do test -e $(ETC)/$$f || install -m 644 host/$$f $(ETC)/$$f; done
	for f in container/network/conf/*.conflist; do test -e $(ETC)/network/$${f##*/} || install -m 644 $$f $(ETC)/network; done
	bin/singularity-cli docs man $(SHARE)/man/man1
	install -d $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	bin/singularity-cli completion bash > $(SHARE)/bash-completion/completions/singularity
	bin/singularity-cli completion zsh > $(SHARE)/zsh/site-functions/_singularity
	bin/singularity-cli completion fish > $(SHARE)/fish/vendor_completions.d/singularity.fish

# The setuid helper, for root and on purpose: see doc/admin.
install-suid: install
	install -D -o root -g root -m 4755 bin/starter-suid $(LIBEXEC)/starter-suid
	test -e $(ETC)/ecl.toml || { printf '# Which signed images may run; see singularity ecl --help.\nactivated = false\n' >$(ETC)/ecl.toml; chmod 644 $(ETC)/ecl.toml; }

clean:
	rm -rf bin
