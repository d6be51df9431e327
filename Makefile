export CGO_ENABLED = 0
VERSION ?= 5.0.0
PREFIX ?= /usr/local
LDFLAGS = -s -w -X singularity/conf.Version=$(VERSION) -X singularity/conf.Prefix=$(PREFIX)

.PHONY: build test
build:
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...
test: build
	go vet ./... && go test ./...
