# dinobatch: `make demo` shows it, `make test` proves it, `make help` lists the rest.
include config.mk

.DEFAULT_GOAL := all
ifeq (,$(filter -j%,$(MAKEFLAGS)))
MAKEFLAGS += -j$(shell nproc)
endif
.DELETE_ON_ERROR:
SHELL := bash

CU_SRC    := $(shell find src -name '*.cu' | sort)
SRC       := $(shell find src -name '*.c' $(if $(filter 1,$(CUDA)),-not -path '*/without_cuda/*') \
  -not -path $(if $(filter 1,$(NCCL)),'*/without_nccl/*','*/nccl/*') | sort)
CC_SRC    := $(shell find src -name '*.cc' | sort)
JOBS      := $(wildcard jobs/*.c)
CU_OBJ    := $(if $(filter 1,$(CUDA)),$(CU_SRC:%.cu=$(BUILD)/%.cu.o))
OBJ       := $(SRC:%.c=$(BUILD)/%.o) $(CC_SRC:%.cc=$(BUILD)/%.o) $(CU_OBJ) $(BUILD)/made/h5_schema_text.o
LIB       := $(BUILD)/libdinobatch.a
BIN       := $(BUILD)/dinobatch
SCHEMAS   := $(wildcard hdf5_schemas/*.yaml)

SUPPORT     := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))
SUITES      := unit ops index golden mpi jobs cuda slurm
SUITE_BINS  := $(SUITES:%=$(BUILD)/tests/test_%)
MPI_CASE    := $(BUILD)/tests/mpi_case
C_FILES     := $(shell find src jobs tests -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cc' | sort)

DATA_DIR   ?= ../shared/data
GOLDEN_DIR ?= tests/golden/data
export DATA_DIR GOLDEN_DIR
export DINOBATCH := $(abspath $(BIN))
export MPI_CASE_BIN := $(abspath $(MPI_CASE))
export MPI_CASE_EMULATED_BIN := $(abspath $(MPI_CASE)_emulated)

.PHONY: all help setup test test-unit test-ops test-index test-golden test-mpi test-jobs test-slurm test-cuda test-emulated build-tests demo bench \
        lint format asan fuzz torture cuda-all info clean

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
$(BUILD)/src/comm/nccl/%.o: CPPFLAGS += -isystem $(CUDA_PATH)/include
$(BUILD)/src/h5/%.o $(BUILD)/src/data/%.o $(BUILD)/src/config/%.o $(BUILD)/src/report/%.o $(BUILD)/tests/%.o \
  $(BUILD)/src/run/%.o $(BUILD)/src/plan/%.o $(BUILD)/src/bench/%.o $(BUILD)/src/eval/%.o $(BUILD)/jobs/%.o: CPPFLAGS += $(PKG_CFLAGS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@

# C++ around Faiss. Without -march: what its headers define inline is also in the library, which is for any processor.
$(BUILD)/src/index/%.o: CPPFLAGS += $(FAISS_CPPFLAGS)
$(BUILD)/%.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c $< -o $@
$(BUILD)/made/faiss_state: FORCE
	@mkdir -p $(@D)
	@echo '$(FAISS_PATH) $(FAISS_VERSION) $(FAISS_GPU)' | cmp -s - $@ || echo '$(FAISS_PATH) $(FAISS_VERSION) $(FAISS_GPU)' > $@
$(BUILD)/src/index/faiss_shim.o $(BUILD)/src/run/libraries.o: $(BUILD)/made/faiss_state
$(BUILD)/src/run/libraries.o: CPPFLAGS += -DFAISS_VERSION='"$(FAISS_VERSION)$(if $(filter 1,$(FAISS_GPU)), with GPUs)"'

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

# Kernels, and the C++ around them.
$(BUILD)/%_sm90.cu.o: CUDA_TARGETS := $(CUDA_TARGETS_SM90)
$(BUILD)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) $(CUDA_TARGETS) -Xptxas -v -MMD -MP -MF $(@:.o=.d) -c $< -o $@ 2> $(@:.o=.ptxas) || { cat $(@:.o=.ptxas) >&2; exit 1; }
	@grep -vE '^ptxas info|^ +[0-9]+ bytes stack frame' $(@:.o=.ptxas) >&2 || true

# With and without CUDA the library has other members.
$(BUILD)/made/cuda_state: FORCE
	@mkdir -p $(@D)
	@echo 'CUDA=$(CUDA) NCCL=$(NCCL)' | cmp -s - $@ || echo 'CUDA=$(CUDA) NCCL=$(NCCL)' > $@

$(LIB): $(OBJ) $(BUILD)/made/cuda_state
	@rm -f $@
	$(AR) rcs $@ $(OBJ)

$(BIN): $(JOBS:%.c=$(BUILD)/%.o) $(LIB)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(LDLIBS) -o $@

# --- tests --------------------------------------------------------------------------------------------------

# All suites but cuda stay without CUDA: Criterion starts a process for each test, and cuBLAS alone takes 0.1 s to load. Objects
# named before the library hide its own.
WITHOUT_CUDA := $(patsubst %.c,$(BUILD)/%.o,$(wildcard src/*/without_*/*.c))

define suite
$(BUILD)/tests/test_$(1): $$(patsubst %.c,$(BUILD)/%.o,$$(wildcard tests/$(1)/$(if $(filter mpi,$(1)),test_*,*).c)) $(SUPPORT) \
  $(if $(filter cuda,$(1)),,$(WITHOUT_CUDA)) $(LIB)
	$$(CC) $$(CFLAGS) $$^ $$(LDFLAGS) $(if $(filter cuda,$(1)),$$(LDLIBS),$$(HOST_LIBS)) -lcriterion -o $$@
endef
$(foreach s,$(SUITES),$(eval $(call suite,$(s))))

MPI_CASE_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(wildcard tests/mpi/test_*.c),$(wildcard tests/mpi/*.c))) $(SUPPORT)
$(MPI_CASE): $(MPI_CASE_OBJ) $(WITHOUT_CUDA) $(LIB)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(HOST_LIBS) -o $@

# Trainings that are disturbed: a program, because what it starts, kills and counts is processes.
TORTURE := $(BUILD)/tests/test_torture
$(TORTURE): $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/torture/*.c)) $(SUPPORT) $(WITHOUT_CUDA) $(LIB)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(HOST_LIBS) -o $@

# The same cases with this build's GPUs.
$(MPI_CASE)_cuda: $(MPI_CASE_OBJ) $(LIB)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(LDLIBS) -o $@

# The CUDA suite on kernels that run on the host: the floors up to operations, with the emulator in place of CUDA.
EMULATED     := $(BUILD)/emulated
EMULATED_CU  := $(filter-out src/ops/cuda/cuda_gemm.cu src/device/cuda/device_facts.cu,$(CU_SRC))
EMULATOR_OBJ := $(patsubst %.cc,$(EMULATED)/%.o,$(filter-out tests/emulator/test_% %_nccl.cc,$(wildcard tests/emulator/*.cc)))
EMULATED_C   := $(patsubst %.c,$(BUILD)/%.o,$(foreach f,base device device/host tensor comm comm/self comm/without_nccl ops ops/cpu,$(wildcard src/$f/*.c)))
EMULATED_OBJ := $(EMULATED_CU:%.cu=$(EMULATED)/%.o) $(EMULATOR_OBJ)

$(EMULATED)/%.o: %.cu
	@mkdir -p $(@D)
	$(CXX) $(EMULATOR_FLAGS) $(EMULATOR_CHECKS) -x c++ -c $< -o $@

$(EMULATED)/tests/emulator/test_%.o: EMULATOR_FLAGS += $(EMULATOR_CHECKS)
$(EMULATED)/%.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(EMULATOR_FLAGS) -c $< -o $@

# Several processes with an emulated GPU each, or one between them, and NCCL's stand-in over MPI.
EMULATED_NCCL := $(EMULATED)/src/comm/nccl/comm_nccl.o $(EMULATED)/tests/emulator/emulated_nccl.o
$(EMULATED)/tests/emulator/emulated_nccl.o: EMULATOR_FLAGS += -DOMPI_SKIP_MPICXX $(MPI_CFLAGS)
$(EMULATED)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) -Itests/emulator $(CPPFLAGS) $(CFLAGS) -c $< -o $@

$(MPI_CASE)_emulated: $(MPI_CASE_OBJ) $(EMULATED_OBJ) $(EMULATED_NCCL) $(LIB)
	$(CXX) -fopenmp $^ $(LDFLAGS) $(HOST_LIBS) -lubsan -o $@

# All of the program, where objects named before the library hide its own; EMULATED_ALONE is for one process.
EMULATED_STUBS := $(BUILD)/src/device/without_cuda/device_facts_stub.o
EMULATED_ALONE := $(EMULATED_OBJ) $(EMULATED_STUBS) $(patsubst %.c,$(BUILD)/%.o,$(wildcard src/comm/without_nccl/*.c)) $(LIB)
LINK_EMULATED   = $(CXX) -fopenmp $^ $(LDFLAGS) $(HOST_LIBS) -lcriterion -lubsan -o $@

$(BUILD)/tests/test_emulated: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/cuda/*.c)) $(SUPPORT) $(EMULATED_ALONE)
	$(LINK_EMULATED)

$(BUILD)/tests/test_golden_emulated: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/golden/*.c)) $(SUPPORT) $(EMULATED_ALONE)
	$(LINK_EMULATED)

$(BIN)_emulated: $(JOBS:%.c=$(BUILD)/%.o) $(EMULATED_OBJ) $(EMULATED_STUBS) $(EMULATED_NCCL) $(LIB)
	$(CXX) -fopenmp $^ $(LDFLAGS) $(HOST_LIBS) -lubsan -o $@

# Golden files of the kinds that compute on a GPU.
GOLDEN_CUDA := $(BUILD)/tests/golden_cuda
$(GOLDEN_CUDA): FORCE
	@rm -rf $@ && mkdir -p $@
	@ln -s $(abspath $(foreach kind,train_* vit_* sscd,$(wildcard $(GOLDEN_DIR)/$(kind).h5))) $@/

$(BUILD)/tests/test_golden_cuda: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/golden/*.c)) $(SUPPORT) $(LIB)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(LDLIBS) -lcriterion -o $@

$(BUILD)/tests/test_emulator: $(EMULATED)/tests/emulator/test_emulator.o $(EMULATOR_OBJ) $(EMULATED)/src/device/cuda/device_cuda.o \
  $(filter-out $(BUILD)/src/ops/% $(BUILD)/src/comm/%,$(EMULATED_C))
	$(CXX) -fopenmp $^ $(LDFLAGS) $(HOST_LIBS) -lcriterion -lubsan -o $@

build-tests: $(SUITE_BINS) $(MPI_CASE) $(MPI_CASE)_emulated $(BIN) $(BIN)_emulated $(BUILD)/tests/test_emulated $(BUILD)/tests/test_emulator \
  $(BUILD)/tests/test_golden_emulated $(TORTURE)

# Runs one suite's tests; the closing line of Criterion is the verdict.
define run_suite
	@echo "--- $(1)"
	@$(BUILD)/tests/test_$(1) --timeout $(or $(2),120)
endef

## make test         install, build, run every test that needs no GPU
test: setup
	$(MAKE) build-tests
	$(MAKE) test-unit test-ops test-index test-golden test-mpi test-jobs test-slurm test-emulated test-cuda
	$(MAKE) torture TORTURE_TRIALS=12 TORTURE_SECONDS=40

test-unit: $(BUILD)/tests/test_unit
	$(call run_suite,unit)

test-ops: $(BUILD)/tests/test_ops
	$(call run_suite,ops)

test-index: $(BUILD)/tests/test_index
	$(call run_suite,index)

## make test-golden  compare with reference outputs: GOLDEN_DIR=DIR picks another folder of them
test-golden: $(BUILD)/tests/test_golden
	$(call run_suite,golden)

test-mpi: $(BUILD)/tests/test_mpi $(MPI_CASE) $(MPI_CASE)_emulated
	$(call run_suite,mpi,600)

test-jobs: $(BUILD)/tests/test_jobs $(BIN)
	$(call run_suite,jobs,600)

## make test-slurm   the scripts of slurm/ under a Slurm of their own; says why where there can be none
test-slurm: $(BUILD)/tests/test_slurm $(BIN)
	@echo "--- slurm"
	@bash tests/support/slurm.sh $(BUILD)/tests/test_slurm -j16 || [ $$? = 77 ]

## make test-cuda    every operation of the GPU beside the CPU's; says how many tests it skips where there is no GPU
test-cuda: $(BUILD)/tests/test_cuda $(if $(filter 1,$(CUDA)),$(BUILD)/tests/test_mpi $(MPI_CASE)_cuda $(BUILD)/tests/test_golden_cuda $(GOLDEN_CUDA) $(BIN))
	$(call run_suite,cuda)
	$(if $(filter 1,$(CUDA)),@MPI_CASE_CUDA_BIN=$(abspath $(MPI_CASE)_cuda) $(BUILD)/tests/test_mpi --filter 'comm_gpu/*')
	$(if $(filter 1,$(CUDA)),@TEST_DEVICE=cuda GOLDEN_DIR=$(GOLDEN_CUDA) $(BUILD)/tests/test_golden_cuda)

## make test-emulated  the same tests with the kernels run on the host, and the tests of what runs them
test-emulated: $(BUILD)/tests/test_emulated $(BUILD)/tests/test_emulator $(BUILD)/tests/test_golden_emulated $(GOLDEN_CUDA) $(BIN)_emulated
	$(call run_suite,emulator)
	@echo "--- emulated"
	@DINOBATCH=$(abspath $(BIN)_emulated) $(BUILD)/tests/test_emulated --timeout 240
	@TEST_DEVICE=cuda GOLDEN_DIR=$(GOLDEN_CUDA) $(BUILD)/tests/test_golden_emulated

# --- using it -----------------------------------------------------------------------------------------------

# Without a GPU the kernels, which take a minute to compile, are left for later.
## make demo         pretrain on a drawn data set (or DATA=DIR, your own pictures), 2 ranks, a few minutes
demo: setup
	$(MAKE) $(BIN) $(if $(wildcard /dev/nvidia0),,CUDA=0)
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

## make fuzz         libFuzzer on pictures, YAML, tar files and safetensors, FUZZ_SECONDS in all (default 600); then damaged HDF5 files
fuzz: setup
	@bash tests/fuzz/fuzz.sh $(or $(FUZZ_SECONDS),600)
	$(MAKE) $(BUILD)/tests/test_unit
	@H5_SEED=random H5_TRIALS=$$((2 * $(or $(FUZZ_SECONDS),600))) $(BUILD)/tests/test_unit --filter 'h5_mutation/*'

## make torture      trainings killed, asked to stop, hung, out of disk at random moments: TORTURE_TRIALS (30), TORTURE_SEED (1; random)
torture: $(TORTURE) $(BIN)
	@echo "--- torture"
	@$(TORTURE)

## make cuda-all     all kernels for all architectures; their registers, shared memory and spills in build/cuda-resources.txt
cuda-all: $(CU_OBJ)
	@bash tests/support/cuda_resources.sh $(BUILD)/cuda-resources.txt $(CU_OBJ:.o=.ptxas)

## make info         what this build would use
info:
	@echo "CC        $(CC) $$($(CC) -dumpfullversion)"
	@echo "CFLAGS    $(CFLAGS)"
	@echo "LDLIBS    $(LDLIBS)"
	@echo "CUDA      $(if $(filter 1,$(CUDA)),$(NVCC) $(CUDA_TARGETS),not built)"
	@echo "Faiss     $(FAISS_VERSION) of $(FAISS_PATH), $(if $(filter 1,$(FAISS_GPU)),with GPUs,without GPUs; OpenBLAS of $(or $(OPENBLAS_PATH),the linker's choice))"
	@echo "NCCL      $(if $(filter 1,$(NCCL)),looked for at run time,not built)"
	@echo "sources   $(words $(SRC)) in src, $(words $(CU_OBJ)) kernels, $(words $(JOBS)) in jobs"

## make clean        remove build/
clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
