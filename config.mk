# Choices of this build. Override on the command line (`make DEBUG=1`) or in config.mk.local, which git ignores.
-include config.mk.local

DEBUG   ?= 0
SANITIZE ?= 0
MARCH   ?= native
CC      ?= gcc
ifeq ($(origin CC),default)
CC      := gcc
endif
MPICC   ?= mpicc
BUILD   ?= build

# Matrix products, fp32 and bf16, are oneDNN's; README "Speed" says why.
PACKAGES     := hdf5-openmpi libpng libjpeg yaml-0.1 libcjson zlib

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

MPI_CFLAGS  = $(shell pkg-config --cflags ompi-c 2>/dev/null)
MPI_LIBS    = $(shell pkg-config --libs ompi-c 2>/dev/null)
PKG_CFLAGS  = $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
PKG_LIBS    = $(shell pkg-config --libs $(PACKAGES) 2>/dev/null)
LDLIBS      = $(PKG_LIBS) $(MPI_LIBS) -ldnnl -lpthread -lm

# Root may run mpirun in containers; two slots must hold four ranks in tests; threads of a rank must not share a core.
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
export OMPI_MCA_rmaps_base_oversubscribe := 1
export OMPI_MCA_hwloc_base_binding_policy := none
