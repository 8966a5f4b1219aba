# netcon: build, demo, tests. Everything that a fresh Debian 12 machine lacks is installed here, and said.
#
#   make demo     a private world on this machine: nginx and curl, neither changed, meet on an encrypted network
#   make test     linters, types, all tests
#   make torture  random programs on kernel sockets and on ours, for SECONDS=3600
#   make fuzz     broken input for everything that reads from outside, for SECONDS=3600 in all
#   make bench    speed, as ratios against a peer in the same run
#
# PREFIX is a virtual environment that other users may read, because the demo's processes run unprivileged.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.SILENT:
.DELETE_ON_ERROR:

ROOT := $(filter 0,$(shell id -u))
PREFIX ?= $(if $(ROOT),/opt/netcon-$(shell pwd | cksum | cut -d' ' -f1),$(CURDIR)/build/prefix)
PYTHON := $(PREFIX)/bin/python

BUILD_PACKAGES := build-essential python3-dev python3-venv libsodium-dev libssl-dev liblz4-dev dpkg-dev
DEMO_PACKAGES := nginx-light curl redis-server redis-tools util-linux
TEST_PACKAGES := apache2-utils musl-tools clang-format docker.io debootstrap iproute2 strace procps bind9-dnsutils netcat-openbsd ncat iperf3 socat busybox-static iputils-ping tcpdump nftables conntrack libpython3.11-testsuite clang-14 libclang-rt-14-dev miniupnpd miniupnpd-nftables

SOURCES := $(shell git ls-files netcon lwip intercept include setup.py pyproject.toml 2>/dev/null)

export NETCON_PLANET := private
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.PHONY: build demo fuzz test unit lint format torture bench sanitize install-test-tools clean
.DEFAULT_GOAL := build

# $(call packages,LIST): install what is missing of LIST, with sudo if need be.
define packages
	missing=""
	for package in $(1); do
		dpkg-query -W -f '$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"
	done
	if [ -n "$$missing" ]; then
		echo "netcon: installing Debian packages:$$missing"
		$(if $(ROOT),,sudo) apt-get update -qq
		$(if $(ROOT),,sudo) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null
	fi
endef

build: $(PREFIX)/.installed
	echo "netcon: the commands are in $(PREFIX)/bin"

$(PREFIX)/bin/python:
	$(call packages,$(BUILD_PACKAGES))
	echo "netcon: virtual environment in $(PREFIX)"
	umask 022
	/usr/bin/python3 -m venv $(PREFIX)
	$(PYTHON) -m pip install -q --upgrade pip 'setuptools>=69' wheel 'cython>=3.0' 'pybind11>=2.11'

$(PREFIX)/.installed: $(SOURCES) | $(PREFIX)/bin/python
	$(call packages,$(BUILD_PACKAGES))
	echo "netcon: building and installing into $(PREFIX)"
	umask 022
	$(PYTHON) -m pip install -q --no-build-isolation '.[test]'
	chmod -R a+rX $(PREFIX)
	touch $@

# Tests import the packages from the work tree: give it the native parts that were just built.
build/.native: $(PREFIX)/.installed
	site=$$(cd / && $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
	(cd $$site && find netcon lwip \( -name '*.so' -o -path netcon/lib/symbols.toml \) -print0 | xargs -0 tar cf -) | tar xf -
	touch $@

demo: build
	$(call packages,$(DEMO_PACKAGES))
	$(PREFIX)/bin/netcon demo

lint: build
	$(call packages,clang-format)
	$(PREFIX)/bin/ruff check .
	$(PREFIX)/bin/ruff format --check .
	$(PREFIX)/bin/mypy
	git ls-files '*.c' '*.h' '*.cpp' '*.hpp' | xargs -r clang-format --dry-run --Werror

install-test-tools: build
	$(call packages,$(DEMO_PACKAGES) $(TEST_PACKAGES))

test: lint unit

unit: install-test-tools build/.native
	NETCON_PREFIX=$(PREFIX) $(PYTHON) -m pytest $(PYTEST_ARGS)

# How long torture and fuzz run.
SECONDS := 3600

# Random programs on kernel sockets and on ours must observe the same; a minute of it is among the tests.
torture: install-test-tools build/.native
	NETCON_PREFIX=$(PREFIX) $(PYTHON) -m tests.torture --seconds $(SECONDS)

# The reactor, the lwip binding and lwIP itself under AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of the tree, with
# their tests. Some ten minutes. What depends on the libraries' own look is left out.
SANITIZE := -fsanitize=address,undefined -fno-sanitize=alignment -fno-sanitize-recover=undefined -fno-omit-frame-pointer
sanitize: install-test-tools build/.native
	mkdir -p build/sanitize/files
	git ls-files -z netcon lwip include tests intercept setup.py pyproject.toml | xargs -0 cp --parents -t build/sanitize
	cp netcon/dataplane/crypto.*.so build/sanitize/netcon/dataplane/
	cd build/sanitize
	CC="gcc $(SANITIZE)" CXX="g++ $(SANITIZE) -Wno-error=maybe-uninitialized" NETCON_BUILD=reactor,lwip $(PYTHON) setup.py -q build_ext --inplace
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" NETCON_LWIP_FILES=$$PWD/files \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 NETCON_PREFIX=$(PREFIX) PYTHONMALLOC=malloc \
		$(PYTHON) -m pytest tests/lwip tests/dataplane --ignore tests/lwip/test_source.py --ignore tests/lwip/test_core.py $(PYTEST_ARGS)

bench: install-test-tools build/.native
	for bench in tests/bench/bench_*.py; do echo; NETCON_PREFIX=$(PREFIX) $(PYTHON) -m tests.bench.$$(basename $$bench .py); done

# All fuzz targets: half of SECONDS for those in Python, half for the native ones (docs/fuzzing.md). Fails if something was found.
fuzz: install-test-tools build/.native
	good=0
	$(PYTHON) -m tests.fuzz $$(($(SECONDS) / 2)) || good=1
	$(PYTHON) -m tests.fuzz.native.run $$(($(SECONDS) / 2)) || good=1
	exit $$good

format: build
	$(PREFIX)/bin/ruff check --fix .
	$(PREFIX)/bin/ruff format .
	git ls-files '*.c' '*.h' '*.cpp' '*.hpp' | xargs -r clang-format -i

clean:
	rm -rf build *.egg-info
	git ls-files -oi --exclude-standard netcon lwip | grep -e '\.so$$' -e '^netcon/lib/' | xargs -r rm -f
	case "$(PREFIX)" in /opt/netcon-*|$(CURDIR)/build/*) rm -rf "$(PREFIX)" ;; esac
