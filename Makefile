# dinobatch: `make demo` shows it, `make test` proves it, `make help` lists the rest.
include config.mk

.DEFAULT_GOAL := all
ifeq (,$(filter -j%,$(MAKEFLAGS)))
MAKEFLAGS += -j$(shell nproc)
endif
.DELETE_ON_ERROR:
SHELL := bash

SRC       := $(shell find src -name '*.c' | sort)
JOBS      := $(wildcard jobs/*.c)
OBJ       := $(SRC:%.c=$(BUILD)/%.o) $(BUILD)/made/h5_schema_text.o
LIB       := $(BUILD)/libdinobatch.a
BIN       := $(BUILD)/dinobatch
SCHEMAS   := $(wildcard hdf5_schemas/*.yaml)

SUPPORT     := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))
SUITES      := unit ops golden mpi jobs
SUITE_BINS  := $(SUITES:%=$(BUILD)/tests/test_%)
MPI_CASE    := $(BUILD)/tests/mpi_case
C_FILES     := $(shell find src jobs tests -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cc' | sort)

DATA_DIR   ?= ../shared/data
GOLDEN_DIR ?= tests/golden/data
export DATA_DIR GOLDEN_DIR
export DINOBATCH := $(abspath $(BIN))
export MPI_CASE_BIN := $(abspath $(MPI_CASE))

.PHONY: all help setup test test-unit test-ops test-golden test-mpi test-jobs test-cuda build-tests demo bench \
        lint format asan fuzz info clean

all: $(BIN)

help:
	@sed -n 's/^## //p' Makefile

## make setup        install the packages that the build needs (apt; says the line to run where it may not)
setup:
	@bash tests/support/setup.sh

# --- building -----------------------------------------------------------------------------------------------

# Kernels may fuse multiply and add; image arithmetic must not, it follows PIL bit by bit.
$(BUILD)/src/data/image/%.o: CFLAGS += -fno-trapping-math
$(BUILD)/src/ops/%.o: CFLAGS += -ffp-contract=fast -fno-trapping-math -fno-signed-zeros
$(BUILD)/src/comm/mpi/%.o $(BUILD)/tests/mpi/%.o: CPPFLAGS += $(MPI_CFLAGS)
$(BUILD)/src/h5/%.o $(BUILD)/src/data/%.o $(BUILD)/src/config/%.o $(BUILD)/src/report/%.o $(BUILD)/tests/%.o \
  $(BUILD)/src/run/%.o $(BUILD)/src/bench/%.o $(BUILD)/src/eval/%.o $(BUILD)/jobs/%.o: CPPFLAGS += $(PKG_CFLAGS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@

# The schemas are part of the program, so that any binary can check any file.
$(BUILD)/made/h5_schema_text.c: hdf5_schemas/embed.sh $(SCHEMAS)
	@mkdir -p $(@D)
	bash hdf5_schemas/embed.sh $(SCHEMAS) > $@

$(BUILD)/made/%.o: $(BUILD)/made/%.c
	$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@

# The manifest of a run names the code: rebuilt when the commit or the cleanness of the tree changes.
GIT_STATE := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
$(BUILD)/made/git_state: FORCE
	@mkdir -p $(@D)
	@echo '$(GIT_STATE)' | cmp -s - $@ || echo '$(GIT_STATE)' > $@
$(BUILD)/src/run/version.o: CPPFLAGS += -DDINOBATCH_GIT='"$(GIT_STATE)"'
$(BUILD)/src/run/version.o: $(BUILD)/made/git_state
.PHONY: FORCE

$(LIB): $(OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(BIN): $(JOBS:%.c=$(BUILD)/%.o) $(LIB)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(LDLIBS) -o $@

# --- tests --------------------------------------------------------------------------------------------------

define suite
$(BUILD)/tests/test_$(1): $$(patsubst %.c,$(BUILD)/%.o,$$(wildcard tests/$(1)/$(if $(filter mpi,$(1)),test_*,*).c)) $(SUPPORT) $(LIB)
	$$(CC) $$(CFLAGS) $$^ $$(LDFLAGS) $$(LDLIBS) -lcriterion -o $$@
endef
$(foreach s,$(SUITES),$(eval $(call suite,$(s))))

$(MPI_CASE): $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(wildcard tests/mpi/test_*.c),$(wildcard tests/mpi/*.c))) $(SUPPORT) $(LIB)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(LDLIBS) -o $@

build-tests: $(SUITE_BINS) $(MPI_CASE) $(BIN)

# Runs one suite's tests; the closing line of Criterion is the verdict.
define run_suite
	@echo "--- $(1)"
	@$(BUILD)/tests/test_$(1) --timeout $(or $(2),120)
endef

## make test         install, build, run every test that needs no GPU
test: setup
	$(MAKE) build-tests
	$(MAKE) test-unit test-ops test-golden test-mpi test-jobs test-cuda

test-unit: $(BUILD)/tests/test_unit
	$(call run_suite,unit)

test-ops: $(BUILD)/tests/test_ops
	$(call run_suite,ops)

## make test-golden  compare with reference outputs: GOLDEN_DIR=DIR picks another folder of them
test-golden: $(BUILD)/tests/test_golden
	$(call run_suite,golden)

test-mpi: $(BUILD)/tests/test_mpi $(MPI_CASE)
	$(call run_suite,mpi,600)

test-jobs: $(BUILD)/tests/test_jobs $(BIN)
	$(call run_suite,jobs,600)

test-cuda:
	@echo "skipped: no CUDA device (this tree has no CUDA kernels yet)"

# --- using it -----------------------------------------------------------------------------------------------

## make demo         pretrain on a drawn data set (or DATA=DIR, your own pictures), 2 ranks, a few minutes
demo: setup
	$(MAKE) $(BIN)
	@bash tests/support/demo.sh $(if $(DATA),"$(DATA)")

## make bench        measure this machine's limits and our share of them
bench: $(BIN)
	$(BIN) bench

# --- keeping it clean ---------------------------------------------------------------------------------------

## make format       clang-format every file in place
format:
	@clang-format -i $(C_FILES)

## make lint         floors, banned calls, sizes, format, clang-tidy
lint:
	@bash tests/lint/lint.sh

## make asan         the unit and operation tests under AddressSanitizer and UBSan, poisoned arenas
asan: setup
	@bash tests/support/asan.sh

## make fuzz         libFuzzer on pictures, YAML and tar files; FUZZ_SECONDS in all (default 600)
fuzz: setup
	@bash tests/fuzz/fuzz.sh $(or $(FUZZ_SECONDS),600)

## make info         what this build would use
info:
	@echo "CC        $(CC) $$($(CC) -dumpfullversion)"
	@echo "CFLAGS    $(CFLAGS)"
	@echo "LDLIBS    $(LDLIBS)"
	@echo "sources   $(words $(SRC)) in src, $(words $(JOBS)) in jobs"

## make clean        remove build/
clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
