/* h5_damage.h - damages an HDF5 file in ways that a seed and a number decide, and makes it whole again.
 *
 * Half of the damage is noise: flipped bits, bytes written over, moved, cut off, added. The other half is
 * malice: bytes of libhdf5's own structures become others, and their checksum is made right again, so that
 * the library believes them.
 */
#ifndef DINOBATCH_TESTS_SUPPORT_H5_DAMAGE_H
#define DINOBATCH_TESTS_SUPPORT_H5_DAMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes [first, first + bytes) of the file, whose checksum comes right behind them. */
typedef struct {
    size_t first, bytes;
} H5Seal;

typedef struct {
    const char *path; /* borrowed */
    uint8_t *bytes;   /* [size] the whole file; owned */
    size_t size;
    H5Seal *seals; /* owned */
    size_t seal_count;
} H5Victim;

/* Learns a valid file. Released by h5_damage_fini. */
void h5_damage_learn(H5Victim *victim, const char *path);
void h5_damage_fini(H5Victim *victim);

/* Writes the file in damaged form. *sealed: checksums may be right, so that what is in it may be another
 * valid file. `told` [size] says what was done. */
void h5_damage_apply(const H5Victim *victim, uint64_t seed, uint64_t number, bool *sealed, char *told,
                     size_t size);

/* Writes the file as it was. */
void h5_damage_undo(const H5Victim *victim);

#endif
