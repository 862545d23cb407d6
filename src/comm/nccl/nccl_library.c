/* nccl_library.c - the look-up of NCCL's functions. Kernels under test have another one (tests/emulator). */
#include "comm/nccl/nccl_library.h"

#include <dlfcn.h>
#include <string.h>

/* A pointer to data holds a function's address: POSIX says so, ISO C does not. */
static bool look_up(void *handle, const char *name, void *function, size_t bytes)
{
    void *symbol = dlsym(handle, name);
    memcpy(function, &symbol, bytes);
    return symbol != NULL;
}

bool nccl_library_load(NcclLibrary *library)
{
    void *handle = dlopen("libnccl.so.2", RTLD_LAZY | RTLD_LOCAL);
    if (!handle) return false;
    bool complete = true;
#define LOOK_UP(name) complete &= look_up(handle, "nccl" #name, &library->name, sizeof library->name);
    NCCL_LIBRARY_FUNCTIONS(LOOK_UP)
#undef LOOK_UP
    return complete;
}
