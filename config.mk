# Choices of this build. Override on the command line (`make DEBUG=1`) or in config.mk.local, which git ignores.
-include config.mk.local

DEBUG   ?= 0
SANITIZE ?= 0
MARCH   ?= native
CC      ?= gcc
ifeq ($(origin CC),default)
CC      := gcc
endif
ifeq ($(origin CXX),default)
CXX     := g++
endif
MPICC   ?= mpicc
BUILD   ?= build

# GPUs: 1 builds kernels beside the CPU's operations, 0 leaves them out, auto looks for nvcc. compute.device chooses when the program
# runs. Debug and sanitizer builds are CPU builds. Files *_sm90.cu hold what only an sm_90a can do.
CUDA      ?= auto
CUDA_PATH ?= $(or $(patsubst %/bin/nvcc,%,$(shell command -v nvcc 2>/dev/null)),/usr/local/cuda)
NVCC      ?= $(CUDA_PATH)/bin/nvcc
ifneq (,$(filter 1,$(DEBUG) $(SANITIZE)))
override CUDA := 0
else ifeq ($(CUDA),auto)
override CUDA := $(if $(wildcard $(NVCC)),1,0)
endif
# Collectives between GPUs: 1, 0, or auto, which looks for nccl.h. The program finds libnccl.so.2 when it runs.
NCCL      ?= auto
ifneq ($(CUDA),1)
override NCCL := 0
else ifeq ($(NCCL),auto)
override NCCL := $(if $(wildcard $(CUDA_PATH)/include/nccl.h),1,0)
endif
CUDA_TARGETS      ?= -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90]
CUDA_TARGETS_SM90 ?= -gencode arch=compute_90a,code=sm_90a

# Matrix products, fp32 and bf16, are oneDNN's; README "Speed" says why.
PACKAGES     := hdf5-openmpi libpng libjpeg yaml-0.1 libcjson zlib

# Nearest neighbours: Faiss behind src/index/faiss_shim.cc, linked statically, with the OpenMP flavour of OpenBLAS (beside OpenMP
# of its own the usual one gets slower with threads). FAISS_GPU=1 with FAISS_PATH=PREFIX takes a site's GPU build of Faiss (1.7.3 to
# 1.9 compile), and can move indexes to GPUs; it needs FAISS_CUDA_LIBS.
comma           := ,
FAISS_GPU       ?= 0
FAISS_PATH      ?= /usr
OPENBLAS_PATH   ?= $(firstword $(wildcard /usr/lib/*/openblas-openmp))
FAISS_CUDA_LIBS ?= -L$(CUDA_PATH)/lib64 -Wl,-rpath,$(CUDA_PATH)/lib64 -lcublas -lcudart
FAISS_VERSION    = $(subst $() $(),.,$(shell sed -n 's/^\#define FAISS_VERSION_[A-Z]* //p' $(FAISS_PATH)/include/faiss/Index.h 2>/dev/null))
FAISS_CPPFLAGS  := $(if $(filter /usr,$(FAISS_PATH)),,-isystem $(FAISS_PATH)/include) \
  $(if $(filter 1,$(FAISS_GPU)),-DDINOBATCH_FAISS_GPU -isystem $(CUDA_PATH)/include)
# Shared libraries only where something of Faiss is linked: loading OpenBLAS takes 3 ms of a process.
FAISS_LIBS      := $(if $(filter /usr,$(FAISS_PATH)),,-L$(FAISS_PATH)/lib -Wl$(comma)-rpath$(comma)$(FAISS_PATH)/lib) \
  $(if $(OPENBLAS_PATH),-L$(OPENBLAS_PATH) -Wl$(comma)-rpath$(comma)$(OPENBLAS_PATH)) -Wl,--push-state,--as-needed -lfaiss $(if $(filter 1,$(FAISS_GPU)),$(FAISS_CUDA_LIBS)) -lopenblas -lstdc++ \
  -Wl,--pop-state

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
ifdef CI
WERROR   ?= -Werror
endif
CPPFLAGS := -Isrc -D_GNU_SOURCE -MMD -MP
CFLAGS   := -std=c17 -g -fopenmp -march=$(MARCH) -fno-math-errno -ffp-contract=off $(WARNINGS) $(WERROR)
ifeq ($(SANITIZE),1)
# Warnings are the plain build's job: instrumented code makes gcc guess wrongly.
CFLAGS   += -w -O1 -g1 -DDINOBATCH_POISON -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
else ifeq ($(DEBUG),1)
CFLAGS   += -O1 -DDINOBATCH_POISON
else
CFLAGS   += -O3
endif

CXXFLAGS := -std=c++17 -g -O2 -fopenmp -Wall -Wextra -Wpedantic -Wshadow $(WERROR)
ifeq ($(SANITIZE),1)
CXXFLAGS += -w -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
endif

NVCCFLAGS := -std=c++17 -O3 -lineinfo -Isrc -Xcompiler -Wall,-Wextra,-Wno-missing-field-initializers \
  $(if $(WERROR),-Werror all-warnings)
CUDA_LIBS := -L$(CUDA_PATH)/lib64 -Wl,-rpath,$(CUDA_PATH)/lib64 -lcublasLt -lcudart -lstdc++

# Kernels on the host, for tests: tests/emulator/emulator.h. The checks catch vectors that are not aligned and indices beyond arrays.
EMULATOR_FLAGS := -std=c++17 -g -O2 -fopenmp -ffp-contract=off -march=$(MARCH) -Itests/emulator -Isrc -MMD -MP -Wall -Wextra -Wno-unknown-pragmas \
  -Wno-missing-field-initializers $(WERROR)
EMULATOR_CHECKS := -fsanitize=alignment,bounds,shift,integer-divide-by-zero -fno-sanitize-recover=all

MPI_CFLAGS  = $(shell pkg-config --cflags ompi-c 2>/dev/null)
MPI_LIBS    = $(shell pkg-config --libs ompi-c 2>/dev/null)
PKG_CFLAGS  = $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
PKG_LIBS    = $(shell pkg-config --libs $(PACKAGES) 2>/dev/null)
HOST_LIBS   = $(PKG_LIBS) $(MPI_LIBS) $(FAISS_LIBS) -llbfgs -ldnnl -lpthread -lm
LDLIBS      = $(HOST_LIBS) $(if $(filter 1,$(CUDA)),$(CUDA_LIBS))

# Root may run mpirun in containers; two slots must hold four ranks in tests; threads of a rank must not share a core.
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
export OMPI_MCA_rmaps_base_oversubscribe := 1
export OMPI_MCA_hwloc_base_binding_policy := none
