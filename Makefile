# What a developer does with this repository. `make test` is what CI runs.
#
# It works on a fresh Debian machine that has Rust: `test-deps` installs what is missing, and only
# that, as root or with sudo.

SUDO := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo)
VENV := target/test-venv
OPENAPI_VENV := target/openapi-venv
# Folders of npm packages. OpenFeature's provider for servers is by itself: it needs another
# ofrep-core than the one for the web.
NPM_FOLDERS := tests/sdk tests/sdk/openfeature-server
RUST_CLIENTS := tests/sdk/rust/Cargo.toml
RUST_CLIENTS_OPTIONS := --target-dir target/test-rust --locked
# Black-box tests that open no stream.
NO_STREAMS := command_line divergences evaluate flipper matrix openapi receivers snapshots transfer webhooks
# Those that break databases; how streams are written is nothing to them.
OUTAGES := $(patsubst tests/it/outages/%.rs,outages::%,$(wildcard tests/it/outages/*.rs))
# Black-box tests of several nodes: they choose their store, and how streams are written changes nothing of theirs.
OF_NODES := chaos freshness nodes rolling relays::chaos relays::cold relays::fresh
# Black-box tests of what the store decides, and the SDKs' stories.
OF_STORES := command_line faults first_minute flipper identities management ofrep openapi pace push_only \
	reads sdk_identity sdk_js sdk_python shutdown snapshots store_away streams targeting transfer webhooks

# The black-box tests mostly wait for clients, so they share the cores.
export RUST_TEST_THREADS ?= 4
# Chromium comes from Debian, never from a download.
export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD = 1

.PHONY: run test chaos lint test-deps test-packages

# Starts the gateway with a demo project; the greeting says what to try.
run:
	cargo run --release

test: test-deps lint
	node --test clients/browser/test/*.test.js
	$(VENV)/bin/python -m unittest discover -s clients/python/tests -t clients/python
	node --test clients/node/test/*.test.js
	ruby clients/ruby/test/all.rb
	cargo test --workspace --locked
	# The same again with every stream as a body, as those of TLS and HTTP/2 are; without what opens none.
	FLAGCAST_TEST_FAN_OUT=bodies cargo test --workspace --test it --locked -- \
		$(NO_STREAMS:%=--skip %::) $(OF_NODES:%=--skip %::) $(OUTAGES:%=--skip %::)
	# What the store decides again, with every store in PostgreSQL; the page's tests of webhooks only sound alike.
	FLAGCAST_TEST_STORE=postgres cargo test --workspace --test it --locked -- \
		$(OF_STORES:%=%::) --skip browser:: --skip webhooks::nodes::

# Ten minutes of random faults: nodes and database killed, links cut; and five of relays with a crowd. `make test` has a
# quarter of a minute of each.
chaos: test-packages
	FLAGCAST_CHAOS_SECONDS=600 cargo test --test it --locked chaos:: -- --nocapture --skip relays::
	FLAGCAST_CHAOS_SECONDS=300 FLAGCAST_TEST_CROWD=5000 cargo test --test it --locked relays::chaos:: -- --nocapture

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	cargo fmt --manifest-path $(RUST_CLIENTS) --check
	cargo clippy --manifest-path $(RUST_CLIENTS) $(RUST_CLIENTS_OPTIONS) -- -D warnings

# The published clients that the tests drive, at exact versions.
test-deps: test-packages $(NPM_FOLDERS:%=%/node_modules/.package-lock.json) $(VENV)/.installed \
		$(OPENAPI_VENV)/.installed
	cargo build --manifest-path $(RUST_CLIENTS) $(RUST_CLIENTS_OPTIONS)

# Debian packages that are not there yet. The servers among them must not start: while they are
# installed, `policy-rc.d` says no, unless the machine has a policy of its own.
test-packages:
	@missing=""; \
	command -v cc > /dev/null || missing="$$missing gcc libc6-dev"; \
	command -v chromium > /dev/null || missing="$$missing chromium"; \
	command -v curl > /dev/null || missing="$$missing curl"; \
	command -v node > /dev/null || missing="$$missing nodejs"; \
	command -v npm > /dev/null || missing="$$missing npm"; \
	python3 -c 'import ensurepip' 2> /dev/null || missing="$$missing python3-venv"; \
	command -v promtool > /dev/null || missing="$$missing prometheus"; \
	command -v ruby > /dev/null || missing="$$missing ruby"; \
	for package in puma ruby-flipper ruby-minitest ruby-rack ruby-sinatra ruby-webrick; do \
		dpkg -s $$package > /dev/null 2>&1 || missing="$$missing $$package"; \
	done; \
	ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || missing="$$missing postgresql"; \
	[ -x /usr/sbin/varnishd ] || missing="$$missing varnish"; \
	[ -x /usr/sbin/nginx ] || missing="$$missing nginx-light"; \
	[ -x /usr/sbin/squid ] || missing="$$missing squid"; \
	[ -x /usr/bin/caddy ] || missing="$$missing caddy"; \
	[ -x /usr/sbin/haproxy ] || missing="$$missing haproxy"; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		policy=/usr/sbin/policy-rc.d; \
		if [ ! -e "$$policy" ]; then \
			trap '$(SUDO) rm -f /usr/sbin/policy-rc.d' EXIT; \
			printf '#!/bin/sh\nexit 101\n' | $(SUDO) tee "$$policy" > /dev/null; \
			$(SUDO) chmod +x "$$policy"; \
		fi; \
		$(SUDO) apt-get update -q; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive \
			apt-get install -q -y --no-install-recommends $$missing; \
	fi

%/node_modules/.package-lock.json: %/package.json %/package-lock.json | test-packages
	cd $* && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

$(VENV)/.installed: tests/sdk/requirements.txt clients/python/tests/requirements.txt | test-packages
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(patsubst %,-r %,$(filter %.txt,$^))
	touch $@

$(OPENAPI_VENV)/.installed: tests/openapi/requirements.txt | test-packages
	python3 -m venv $(OPENAPI_VENV)
	$(OPENAPI_VENV)/bin/pip install --quiet --disable-pip-version-check \
		-r tests/openapi/requirements.txt
	touch $@
