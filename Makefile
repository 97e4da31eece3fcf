# Two commands for a newcomer: `make demo` and `make test`. Each sets up what it
# needs (system packages, .venv, the build); run again, the set-up takes a moment.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
CC     := cc
CALLS  ?= 20000
RUNS   ?= 50
SEED   ?= 1
FACE   ?= espresso
REPEATS ?= 1
TESTS  ?= tests
SECONDS ?= 60
TARGET ?=
JOBS   ?=
WHEEL  ?=
WHEELS ?=
STATIC ?=
PARTS  ?=
CHECK  ?=
ONLY   ?=
INTERPRETERS ?= 1000
STRIDE ?= 10

export PYTHON
export ESPRESSO_WERROR ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN    := .venv/bin
WHEELED := .venv-wheel/bin
READY  := .venv/.ready
BUILT  := build/.built
FREE   := build/venv3.13t/bin
PYTEST := $(BIN)/python -m pytest
# The output of each goal in one piece, all of them also where one fails.
SIDE_BY_SIDE := $(MAKE) --no-print-directory --jobs=2 --output-sync --keep-going

# ---- what the extension is made of ------------------------------------------
SOURCES := setup.py pyproject.toml scripts/exports.map \
           $(wildcard src/core/*.[ch] src/core/*.def src/binding/*.[ch])
# Removed by hand, it is made again although the stamp is there.
EXTENSION := $(wildcard espresso/_core.abi3.so)

# ---- what the C tests are made of -------------------------------------------
# Lazy (=): pkg-config may be missing until `system` has run. With ESPRESSO_STATIC
# (a folder made by scripts/wheels) they run on the libraries that wheels bring;
# there the linker takes a test's own function before that of an archive.
C_OUT       := $(if $(ESPRESSO_STATIC),build/c-static,build/c)
C_PROGRAMS  := $(patsubst tests/c/%.c,$(C_OUT)/%,$(wildcard tests/c/test_*.c))
C_CORE      := $(patsubst src/%.c,$(C_OUT)/%.o,$(wildcard src/core/*.c))
C_HELPERS   := $(patsubst tests/c/%.c,$(C_OUT)/%.o,\
               $(filter-out $(wildcard tests/c/test_*.c),$(wildcard tests/c/*.c)))
TSAN_PROGRAMS := $(filter-out %/test_memory,$(C_PROGRAMS:$(C_OUT)/%=build/tsan/%))
ASAN_PROGRAMS := $(TSAN_PROGRAMS:build/tsan/%=build/asan/%)
C_VERSION    = $(shell sed -n 's/^version = //p' pyproject.toml)
C_ARCHIVES   = $(addprefix $(ESPRESSO_STATIC)/lib/lib,curl.a ssl.a crypto.a cjson.a)
ifdef ESPRESSO_STATIC
C_LIBRARIES  = cmocka
C_STATIC     = -DESP_PRIVATE_LIBRARIES -I$(ESPRESSO_STATIC)/include
C_LINK       = --coverage -Wl,-u,__gcov_dump -pthread -Wl,-z,muldefs $(C_ARCHIVES) -lm -ldl
else
C_LIBRARIES  = libcurl libcjson cmocka
C_STATIC     =
C_LINK       = --coverage -Wl,-u,__gcov_dump -pthread -lm -ldl
endif
C_FLAGS      = -std=c11 -D_GNU_SOURCE -DESPRESSO_VERSION='$(C_VERSION)' \
               -Wall -Wextra -Wconversion -Wshadow -Werror -O0 -g -pthread $(C_STATIC) \
               -Isrc/core -Itests/c $(shell pkg-config --cflags $(C_LIBRARIES))
C_LINK_ALL   = $(C_LINK) $(shell pkg-config --libs $(C_LIBRARIES))
C_FORMATTED  = $(wildcard src/*/*.[ch] tests/*/*.[ch] benchmarks/*.[ch])

# ---- what the fuzz targets are made of ----------------------------------------
# clang with libFuzzer for `make fuzz`; the compiler of the tests, without a fuzzer,
# for the kept files that `make test` runs. The core is an archive: a target that has
# a file of it in its own version takes that one.
FUZZ_TARGETS := reply wire press policy arguments
FUZZ_HELPERS := fuzz shape answer contract
FUZZ_CHECKS  := -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined \
                -fno-sanitize-recover=all
FUZZ_FLAGS    = -std=c11 -D_GNU_SOURCE -DESPRESSO_VERSION='$(C_VERSION)' \
                -Wall -Wextra -Wconversion -Wshadow -Werror $(FUZZ_CHECKS) -pthread \
                -Isrc/core -Itests/fuzz $(shell pkg-config --cflags libcurl libcjson)
FUZZ_LINK     = -pthread $(shell pkg-config --libs libcurl libcjson) -lm -ldl
FUZZERS      := $(FUZZ_TARGETS:%=build/fuzz/clang/%)
FUZZ_PLAYERS := $(FUZZ_TARGETS:%=build/fuzz/gcc/%)

# ---- what lets allocations fail ----------------------------------------------
# Under the address sanitizer the linker puts it before the core's calls of malloc.
ASAN        := -fsanitize=address,undefined -fno-sanitize-recover=all \
               -fno-omit-frame-pointer
WRAP        := $(foreach name,malloc calloc realloc free,-Wl,--wrap=$(name))
TORTURE     := torture$(if $(ESPRESSO_STATIC),-static)
SPARED      := -Wl,--wrap=SSL_set_connect_state
TORTURERS   := $(patsubst tests/torture/%.c,%.o,\
               $(filter-out %/preload.c,$(wildcard tests/torture/*.c))) \
               life.o loop.o server.o world.o
TORTURE_OF   = $(addprefix build/$(1)/,$(TORTURERS)) \
               $(patsubst src/%.c,build/$(1)/%.o,$(wildcard src/core/*.c))
# Its stories side by side; most of them wait now and then.
TORTURED     = $(1) stories | xargs -d '\n' -n 1 -P 4 $(1) $(2)
TORTURE_LINK = $(C_LINK_ALL) \
               $(if $(ESPRESSO_STATIC),$(SPARED),$(shell pkg-config --libs openssl))

# ---- what a Python without a GIL is tested with ------------------------------
# Not with what needs a package that has no build for it, or is not about threads.
NOT_FREE := bots cli conformance docs doctor errors fuzz leaks matrix matrix_network \
            matrix_gateways mutants notebook plugin processes readme reliability replies \
            soak source torture
FREETHREADED = $(TESTS) $(NOT_FREE:%=--ignore=tests/test_%.py) \
               --ignore-glob='tests/test_guard*.py' \
               -k "not uvloop and not another_kind_of_loop"

# ---- what some goals run unless TESTS names files -------------------------------
NAMED_OR = $(if $(filter-out tests,$(TESTS)),$(TESTS),$(1))
# Under the thread sanitizer; until memory is flat.
THREAD_TESTS = tests/test_threads.py tests/test_freethreaded.py
LEAK_TESTS = $(patsubst %,tests/test_%.py,cancel_all lists async errors arguments memory)

.PHONY: help demo test docs test-c torture test-torture test-asan test-valgrind test-tsan test-freethreaded test-guard-long test-leaks test-interpreters-long guard-latency chaos matrix mutants soak notebook sdk fuzz fuzz-replay analyze reliability lint lint-release fix bench bench-cli instructions wheel wheel-test wheel-test-c wheel-check wheel-behind clean build system FORCE

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' Makefile

demo: build ## start a practice exchange, cancel its orders, show every error
	@$(BIN)/python examples/demo.py

# What mostly waits runs side by side; what is marked `alone`, by itself.
test: build test-c torture fuzz-replay ## run the C tests, then pytest
	@scripts/bootstrap servers
	@$(PYTEST) --quiet --numprocesses 6 --dist loadfile tests/test_guard*.py
	@$(PYTEST) -m "alone and not long"
	@$(PYTEST) --numprocesses 3 --dist loadfile -m "not alone and not long" \
	    --ignore-glob='tests/test_guard*.py'

test-c: $(C_PROGRAMS) ## run the C tests under valgrind, print their coverage
	@$(PYTHON) scripts/c_tests.py $^

# Its shadow memory wants a known layout of the process, hence setarch. Not with the
# tests that put an allocator of their own in place of malloc.
test-tsan: build $(TSAN_PROGRAMS) ## run the tests of C and of threads under the thread sanitizer
	@$(SIDE_BY_SIDE) $(TSAN_PROGRAMS:=.run)
	@scripts/sanitized thread $(call NAMED_OR,$(THREAD_TESTS))

%.run: %
	@setarch -R $< 2>&1

torture: build/$(TORTURE)/torture ## let allocations of the core fail: every one, of OpenSSL's the STRIDE-th
	@$(call TORTURED,$<,$(STRIDE))

# With those of Python itself, and all of OpenSSL's.
test-torture: STRIDE = 1
test-torture: build torture ## let every allocation fail, one at a time (long)
	@TORTURE_STRIDE=1 $(PYTEST) --numprocesses 2 tests/test_torture.py

# Leaks, too. test_memory and the preloaded parts of pytest have a malloc of their own.
test-asan: build $(ASAN_PROGRAMS) build/asan/torture ## run all tests under the address sanitizer (long; TESTS=)
	@$(SIDE_BY_SIDE) $(ASAN_PROGRAMS:=.run)
	@$(call TORTURED,build/asan/torture,200)
	@scripts/sanitized address --numprocesses 2 --dist loadfile -m "not long and not chaos" $(TESTS)

# Undefined values are left to test-c: CPython itself makes valgrind cry wolf there.
test-valgrind: build ## run pytest under valgrind (slow; TESTS=tests/test_errors.py)
	@PYTHONMALLOC=malloc valgrind --quiet --error-exitcode=99 --num-callers=30 \
	    --undef-value-errors=no --suppressions=scripts/valgrind.supp \
	    $(PYTEST) -o faulthandler_timeout=0 -m "not slow and not long and not chaos" $(TESTS)

# The waits of 15 s and the like; each way to die 100 times, an outage of 20 s.
test-guard-long: build ## run the guard's tests with all their repeats (long)
	@GUARD_REPEATS=100 GUARD_OUTAGE=20 GUARD_EXAMPLES=2000 GUARD_ROUNDS=200 \
	    $(PYTEST) --numprocesses 6 --dist worksteal -m "long or not long" \
	    tests/test_guard*.py

# Malloc tells of one arena only, and counts what a thread has freed and keeps at hand.
test-leaks: build ## run each test until memory is flat (TESTS=tests/test_errors.py)
	@MALLOC_ARENA_MAX=1 GLIBC_TUNABLES=glibc.malloc.tcache_count=0 \
	    $(PYTEST) -o faulthandler_timeout=0 -p tests.leaks \
	    $(call NAMED_OR,$(LEAK_TESTS))

# Each interpreter in turn, as many as are at hand; some minutes each.
test-interpreters-long: build ## make and destroy 1,000 subinterpreters (INTERPRETERS=1000)
	@INTERPRETER_ROUNDS=$(INTERPRETERS) $(PYTEST) -o faulthandler_timeout=0 -s \
	    tests/test_interpreters.py -k many_times

guard-latency: build ## measure a bot's death to the watchdog's cancel (RUNS=50)
	@$(BIN)/python -m benchmarks.guard --runs $(RUNS)

# The first run builds that Python, into build/; it takes some minutes.
test-freethreaded: build ## run pytest on a CPython without a GIL (TESTS=tests/test_x.py)
	@scripts/bootstrap freethreaded
	@scripts/freethreaded
	@PYTHONPATH=tests/freethreaded $(FREE)/python -m pytest $(FREETHREADED)

chaos: build ## let the chaos judge watch CALLS calls (CALLS=20000 SEED=1 FACE=espresso)
	@$(BIN)/python -m tests.chaos --calls $(CALLS) --seed $(SEED) --client $(FACE)

reliability: build ## measure what docs/reliability.md promises (FIGURES="soak guard" WRITE=1 RELEASE=1)
	@$(BIN)/python -m scripts.reliability $(if $(RELEASE),--release) \
	    $(if $(WRITE),--write) $(FIGURES)

# Each for its share of the time, or of RUNS; as many at once as there are cores.
fuzz: build fuzz-tools $(FUZZERS) build/fuzz/gcc/dump ## fuzz the core (SECONDS=60 or RUNS=5000000; TARGET=reply)
	@$(BIN)/python -m tests.fuzz $(if $(TARGET),--target $(TARGET)) \
	    $(if $(filter command environment,$(origin RUNS)),--runs $(RUNS),--seconds $(SECONDS)) \
	    $(if $(JOBS),--jobs $(JOBS))

fuzz-replay: $(FUZZ_PLAYERS) build/fuzz/gcc/dump ## build what runs the fuzzers' kept files without clang

matrix: build ## print the fault matrix, row by row, held or not (REPEATS=1)
	@scripts/bootstrap servers
	@$(BIN)/python -m tests.matrix --repeats $(REPEATS)

lint: build docs $(C_PROGRAMS) ## check format, warnings, types, stubs, the ban list, and the documents
	@$(BIN)/clang-format --dry-run -Werror $(C_FORMATTED)
	@ESPRESSO_WERROR=1 $(BIN)/python setup.py --quiet build_ext --force \
	    --build-lib build/lint --build-temp build/lint
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@$(BIN)/python -m mypy.stubtest espresso._core
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/pyright
	@$(PYTEST) --quiet tests/test_source.py

docs: build ## make the documents into build/docs, a warning is an error
	@scripts/venv .venv-docs docs/requirements.txt
	@.venv-docs/bin/python -m sphinx -q -E -W -n --keep-going -b html \
	    -d build/doctrees docs build/docs

analyze: $(READY) analyze-tools ## gcc -fanalyzer, clang-tidy and cppcheck on src/ (a minute or two)
	@$(BIN)/python scripts/analyze.py

lint-release: wheel-tools ## check the release workflow, and what is in dist/
	@$(WHEELED)/python -m scripts.wheels.lint

fix: $(READY) ## format all code, repair what ruff can repair
	@$(BIN)/clang-format -i $(C_FORMATTED)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# On a copy of the tree, in build/mutants; some ten minutes.
mutants: build ## break each guard on purpose: a test must notice (ONLY="fork JSON")
	@$(BIN)/python -m scripts.mutants $(if $(ONLY),--only $(ONLY))

# A million calls take some five minutes of an idle machine.
soak: CALLS = 1000000
soak: build ## make CALLS calls through one client, with faults: nothing may grow
	@$(BIN)/python -m tests.soak --calls $(CALLS)

notebook: build ## run examples/notebook.ipynb anew, store what it shows; build/notebook.html
	@$(BIN)/python -m scripts.notebook

sdk: build ## let the exchange's own Python SDK cancel on the sandbox
	@PIP_NO_DEPS=1 scripts/venv build/venv-sdk tests/sdk/requirements.txt
	@$(BIN)/python -m tests.sdk

# WHEEL= is measured beside the build; STATIC= is what it brings, for a C loop on the
# same libcurl: `python -m scripts.wheels.libraries` in .venv-wheel prints it.
bench: build ## measure against C and every peer (CHECK=1: fail on a bar; WRITE=1; WHEEL=; PARTS=)
	@scripts/bootstrap bench
	@scripts/venv .venv-bench benchmarks/requirements.txt
	@PIP_NO_DEPS=1 scripts/venv build/venv-sdk tests/sdk/requirements.txt
	@$(BIN)/python -m benchmarks $(if $(CHECK),--check) $(if $(WRITE),--write) \
	    $(if $(WHEEL),--wheel $(WHEEL)) $(if $(STATIC),--static $(STATIC)) $(PARTS)

instructions: build ## count a warm call's instructions; 3 % above the record fails (WRITE=1 records)
	@scripts/bootstrap bench
	@$(BIN)/python -m benchmarks.instructions $(if $(WRITE),--write)

bench-cli: build ## measure `espresso cancel-all ADAUSDM` against a bare interpreter
	@scripts/bootstrap bench
	@$(BIN)/python -m benchmarks --check --processes 60 command_line

wheel: wheel-tools ## build the self-contained wheels into dist/ (WHEELS=x86_64)
	@$(WHEELED)/python -m scripts.wheels.build $(WHEELS)

wheel-test: build wheel-roots ## press the button with the wheels on other systems
	@$(BIN)/python -m scripts.wheels.places $(PARTS)

wheel-check: build wheel-roots ## measure what the wheels promise, fail on a miss
	@$(BIN)/python -m scripts.wheels.check $(PARTS)

wheel-behind: wheel-tools ## print which bundled libraries have a newer version
	@$(WHEELED)/python -m scripts.wheels.behind

wheel-roots: wheel-tools FORCE
	@scripts/bootstrap roots

wheel-test-c: wheel-tools ## run the C tests, and let allocations fail, on the libraries that a wheel brings
	@$(MAKE) --no-print-directory test-c torture \
	    ESPRESSO_STATIC="$$($(WHEELED)/python -m scripts.wheels.libraries x86_64)"

analyze-tools: FORCE
	@scripts/bootstrap analyze

fuzz-tools: FORCE
	@scripts/bootstrap fuzz

wheel-tools: FORCE
	@scripts/bootstrap wheel
	@scripts/venv .venv-wheel scripts/wheels/requirements.txt
	@scripts/freethreaded python

clean: ## remove all that make has made
	@rm -rf .venv .venv-bench .venv-ccxt .venv-docs .venv-wheel licenses build dist *.egg-info espresso/_core*.so
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis benchmarks/results.json
	@find espresso tests examples benchmarks scripts -name __pycache__ \
	    -prune -exec rm -rf {} + 2>/dev/null || true

# Byte code even where PYTHONDONTWRITEBYTECODE is set: without it each import
# would compile espresso anew, which takes longer than loading libcurl.
build: $(BUILT) ## set up .venv and build the extension in place, if need be
	@$(BIN)/python -m compileall -q espresso

system: ## install the system packages that are missing (apt-get)
	@scripts/bootstrap

# The script touches its stamp only if it did something, and only then is what
# depends on it made again.
$(READY): FORCE | system
	@scripts/venv

$(BUILT): $(READY) $(SOURCES) $(if $(EXTENSION),,FORCE)
	@echo "espresso: building the extension"
	@$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --no-index \
	    --editable .
	@mkdir -p build && touch $@

$(C_OUT)/core/%.o: src/core/%.c Makefile | system
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) --coverage -MMD -MP -c -o $@ $<

$(C_OUT)/%.o: tests/c/%.c Makefile | system
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) -MMD -MP -c -o $@ $<

%/test_arena: C_LINK += -Wl,--wrap=malloc

# Without Python: neither its headers nor its library are named here.
$(C_PROGRAMS): $(C_OUT)/%: $(C_OUT)/%.o $(C_HELPERS) $(C_CORE)
	@$(CC) -o $@ $^ $(C_LINK_ALL)

build/tsan/core/%.o: src/core/%.c Makefile | system
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) -fsanitize=thread -MMD -MP -c -o $@ $<

build/tsan/%.o: tests/c/%.c Makefile | system
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) -fsanitize=thread -MMD -MP -c -o $@ $<

$(TSAN_PROGRAMS): build/tsan/%: build/tsan/%.o $(C_HELPERS:$(C_OUT)/%=build/tsan/%) \
                  $(C_CORE:$(C_OUT)/%=build/tsan/%)
	@$(CC) -fsanitize=thread -o $@ $^ $(C_LINK_ALL)

# A fuzzer follows what it has covered: in the core and the target, not in the helpers.
build/fuzz/clang/core/%.o: src/core/%.c Makefile | fuzz-tools
	@mkdir -p $(@D)
	@clang $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<

build/fuzz/clang/%.o: tests/fuzz/%.c Makefile | fuzz-tools
	@mkdir -p $(@D)
	@clang $(FUZZ_FLAGS) $(if $(filter $*,$(FUZZ_TARGETS)),-fsanitize=fuzzer-no-link) \
	    -MMD -MP -c -o $@ $<

$(FUZZERS): %: %.o $(FUZZ_HELPERS:%=build/fuzz/clang/%.o) build/fuzz/clang/core.a
	@clang $(FUZZ_CHECKS) -fsanitize=fuzzer -o $@ $^ $(FUZZ_LINK)

build/fuzz/gcc/core/%.o: src/core/%.c Makefile | system
	@mkdir -p $(@D)
	@$(CC) $(FUZZ_FLAGS) -Wno-format-truncation -MMD -MP -c -o $@ $<

build/fuzz/gcc/%.o: tests/fuzz/%.c Makefile | system
	@mkdir -p $(@D)
	@$(CC) $(FUZZ_FLAGS) -MMD -MP -c -o $@ $<

$(FUZZ_PLAYERS): %: %.o build/fuzz/gcc/replay.o $(FUZZ_HELPERS:%=build/fuzz/gcc/%.o) \
                 build/fuzz/gcc/core.a
	@$(CC) $(FUZZ_CHECKS) -o $@ $^ $(FUZZ_LINK)

build/fuzz/gcc/dump: build/fuzz/gcc/dump.o build/fuzz/gcc/core.a
	@$(CC) $(FUZZ_CHECKS) -o $@ $^ $(FUZZ_LINK)

FUZZ_CORE := $(patsubst src/core/%.c,%.o,$(wildcard src/core/*.c))
build/fuzz/clang/core.a: $(FUZZ_CORE:%=build/fuzz/clang/core/%)
	@rm -f $@ && ar rcs $@ $^

build/fuzz/gcc/core.a: $(FUZZ_CORE:%=build/fuzz/gcc/core/%)
	@rm -f $@ && ar rcs $@ $^

-include $(wildcard build/fuzz/*/*.d build/fuzz/*/core/*.d)

build/asan/core/%.o: src/core/%.c Makefile | system
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) $(ASAN) -MMD -MP -c -o $@ $<

build/asan/%.o: tests/c/%.c Makefile | system
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) $(ASAN) -MMD -MP -c -o $@ $<

build/asan/%.o: tests/torture/%.c Makefile | system
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) $(ASAN) -MMD -MP -c -o $@ $<

$(ASAN_PROGRAMS): build/asan/%: build/asan/%.o $(C_HELPERS:$(C_OUT)/%=build/asan/%) \
                  $(C_CORE:$(C_OUT)/%=build/asan/%)
	@$(CC) $(ASAN) -o $@ $^ $(C_LINK_ALL)

build/asan/torture: $(call TORTURE_OF,asan)
	@$(CC) $(ASAN) $(WRAP) -o $@ $^ $(TORTURE_LINK)

build/$(TORTURE)/core/%.o: src/core/%.c Makefile | system
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) -MMD -MP -c -o $@ $<

build/$(TORTURE)/%.o: tests/c/%.c Makefile | system
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) -MMD -MP -c -o $@ $<

build/$(TORTURE)/%.o: tests/torture/%.c Makefile | system
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) -MMD -MP -c -o $@ $<

build/$(TORTURE)/torture: $(call TORTURE_OF,$(TORTURE))
	@$(CC) -o $@ $^ $(TORTURE_LINK)

-include $(wildcard build/tsan/*.d build/tsan/core/*.d)
-include $(wildcard build/asan/*.d build/asan/core/*.d)
-include $(wildcard build/$(TORTURE)/*.d build/$(TORTURE)/core/*.d)
-include $(wildcard $(C_OUT)/*.d $(C_OUT)/core/*.d)
