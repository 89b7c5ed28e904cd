# make help lists the targets.

PREFIX  ?= /usr/local
DESTDIR ?=
# The image that `make docker` makes.
IMAGE   ?= mapfs

VERSION := $(shell integration/version.sh)
LDFLAGS := -X main.version=$(VERSION)

# Go's cache does not see that the integration tests use the built command, so their
# old results say nothing: -count=1. Many tests wait, and so more packages than there
# are processors run at a time.
GOTEST  := go test -count=1 -timeout 15m -p 3
# The same with a line for each package, and all that failed told at the end. What took
# how long is kept for `slowest`.
RESULTS := bin/test
SUM     := go tool gotestsum --format pkgname --hide-summary=output

.DEFAULT_GOAL := build
.PHONY: help build demo check test slowest bench lint install uninstall docker clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

build: ## build bin/mapfs
	@integration/setup.sh build
	cmd/build.sh bin/mapfs -ldflags '$(LDFLAGS)'

demo: ## install what is missing, build, and show a mount at work
	@integration/setup.sh demo
	@$(MAKE) --no-print-directory build
	@docs/demo.sh bin/mapfs

check: ## what can be known in a minute: format, vet, unit tests, the short scripts
	@$(MAKE) --no-print-directory lint build
	MAPFS_BINARY=$(CURDIR)/bin/mapfs go test -count=1 $$(go list ./... | grep -v /integration/) ./integration/scripts

# In the integration tests it is the daemon that is built with the race detector,
# and not the hundreds of small clients. What is about words, screens and bulk, or has no
# two goroutines, has shown all it can without it. GORACE takes away the second that
# every command would wait at its end.
#
# Whatever setup.sh installs is required from then on: a test that misses it
# fails instead of skipping.
test: export MAPFS_REQUIRE := fuse,$(shell [ "$$(id -u)" != 0 ] || echo root,tmpfs),$(shell integration/setup.sh -l test),$(MAPFS_REQUIRE)
test: ## install what is missing, check, and run all tests, Docker's too
	@integration/setup.sh test
	@$(MAKE) --no-print-directory lint build
	@mkdir -p $(RESULTS)
	MAPFS_BINARY=$(CURDIR)/bin/mapfs integration/docker/with-engine.sh $(SUM) --jsonfile $(RESULTS)/plain.json --raw-command -- $(GOTEST) -json ./...
	$(SUM) --jsonfile $(RESULTS)/race.json --raw-command -- $(GOTEST) -json -race -skip '^Test(Spill|Many|StatesLegal|Models|ModelsCompared)$$' $$(go list ./... | grep -v /integration/)
	go build -race -o bin/race/mapfs ./cmd/mapfs
	MAPFS_BINARY=$(CURDIR)/bin/race/mapfs GORACE=atexit_sleep_ms=0 MAPFS_RACE=1 $(SUM) --jsonfile $(RESULTS)/daemon.json --raw-command -- $(GOTEST) -json \
		-skip '^Test(Demo|Lab|Manual|Screen|Statements|VerbsManual|GoBuild|Gigabyte|AddressSpace|Walk|Explore|ModelExt4|WhatFilesystemsLeave|CrashReport|CrashPage|CrashStoresWithoutSync|Copies|Exclusive|ProgramsExclusive)|^Test(POSIX|Concurrency)$$/./^(exclusive|passthrough)$$' \
		$$(go list ./integration/... | grep -v -e /docker$$ -e /manual$$ -e /harness$$)
	@$(MAKE) --no-print-directory slowest

slowest: ## the ten slowest tests of the last make test
	@for f in $(RESULTS)/*.json; do echo "the slowest of $$(basename $$f .json):"; \
		go tool gotestsum tool slowest --num 10 --threshold 1s --jsonfile $$f; done

# The peers' modules are bench/'s own. A quick run, or one with flags for the
# benchmark in BENCH, leaves docs/performance.md alone.
bench: ## install the peers, compare, rewrite docs/performance.md (QUICK=1: to bin/bench)
	@integration/setup.sh bench
	@$(MAKE) --no-print-directory build
	cd bench && go vet ./... && go test ./... && go build -o ../bin/bench/bench .
ifneq ($(QUICK)$(BENCH),)
	cd bench && ../bin/bench/bench $(if $(QUICK),-quick) $(if $(BENCH),$(BENCH),-out ../bin/bench/quick.md)
else
	cd bench && ../bin/bench/bench -out ../docs/performance.md
	cd bench && ../bin/bench/bench -out ../docs/performance.md counts
endif

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l bench client cmd docs fs integration internal mapping); \
		if [ "$$unformatted" ]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...

install: build ## install the command, its man pages and its shell completions under PREFIX
	install -D -m 755 bin/mapfs '$(DESTDIR)$(PREFIX)/bin/mapfs'
	install -D -m 644 docs/man/mapfs.1 '$(DESTDIR)$(PREFIX)/share/man/man1/mapfs.1'
	install -D -m 644 docs/man/mapfs-crash.1 '$(DESTDIR)$(PREFIX)/share/man/man1/mapfs-crash.1'
	install -D -m 644 docs/man/mapfs-control.5 '$(DESTDIR)$(PREFIX)/share/man/man5/mapfs-control.5'
	@for shell in bash:bash-completion/completions/mapfs zsh:zsh/site-functions/_mapfs \
		fish:fish/vendor_completions.d/mapfs.fish; do \
		to="$(DESTDIR)$(PREFIX)/share/$${shell#*:}"; \
		bin/mapfs completion "$${shell%%:*}" > bin/completion && install -D -m 644 bin/completion "$$to" && \
		echo "$$to" || exit 1; \
	done

uninstall: ## remove what install installed
	rm -f '$(DESTDIR)$(PREFIX)/bin/mapfs' \
		'$(DESTDIR)$(PREFIX)/share/man/man1/mapfs.1' \
		'$(DESTDIR)$(PREFIX)/share/man/man1/mapfs-crash.1' \
		'$(DESTDIR)$(PREFIX)/share/man/man5/mapfs-control.5' \
		'$(DESTDIR)$(PREFIX)/share/bash-completion/completions/mapfs' \
		'$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_mapfs' \
		'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/mapfs.fish'

docker: ## build the Docker image IMAGE (default: mapfs)
	integration/docker/with-engine.sh integration/docker/build.sh $(IMAGE)

clean: ## remove what build made
	rm -rf bin
