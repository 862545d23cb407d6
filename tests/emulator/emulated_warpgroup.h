/* emulated_warpgroup.h - products of a warpgroup (PTX wgmma) in the emulator. */
#ifndef DINOBATCH_TESTS_EMULATOR_EMULATED_WARPGROUP_H
#define DINOBATCH_TESTS_EMULATOR_EMULATED_WARPGROUP_H

#include <stddef.h>
#include <stdint.h>

enum { EMULATED_WARPGROUP_COLUMNS = 256 };

/* One thread's part of c[64, columns] = or += a[64, 16] . b[16, columns]. */
struct EmulatedProduct {
    float (*c)[4];     /* [columns / 8] */
    const uint32_t *a; /* [4] */
    uint64_t b;        /* descriptor */
    int columns;
    bool across, add; /* b's rows are the tile's; c is added to */
    float (*number)(uint16_t bits);
    int line;
};

/* --- for the header of kernels ----------------------------------------------------------------------- */

/* An address in shared memory, as descriptors count: its lowest ten bits are those of the pointer. */
uint32_t emulated_warpgroup_address(const void *memory);

void emulated_warpgroup_fence_shared();
void emulated_warpgroup_fence();
void emulated_warpgroup_issue(const EmulatedProduct &product);
void emulated_warpgroup_commit(int line);
void emulated_warpgroup_wait(int line);

/* --- for emulator.cc --------------------------------------------------------------------------------- */

/* A block of `threads` threads begins, its shared memory at the end of `bytes` bytes at `memory`; a block has
 * ended: fails where a product is still under way or the warps of a warpgroup issued different ones. */
void emulated_warpgroup_begin(int threads, char *memory, size_t bytes);
void emulated_warpgroup_end();

/* Thread `thread` wrote 16 bytes of shared memory by cp.async. */
void emulated_warpgroup_written(int thread, const void *to);

#endif
