/* sampler.h - which image stands at a position of the endless sample stream.
 *
 * Position p belongs to epoch p / n and takes place p % n of that epoch's permutation of 0..n-1, a pure
 * function of (seed, epoch): a Feistel network over the smallest even-sided power of two >= n with
 * cycle-walking (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). No array of the
 * data set's size, no state: any rank asks for any position, and a resumed run goes on exactly where it was.
 * It is not a cipher: rounds and keys are chosen for statistical use.
 * DEVIATION: the reference draws torch.randperm per epoch (same distribution in effect, other numbers), and
 * on resume other data; here positions are exact.
 */
#ifndef DINOBATCH_DATA_SAMPLER_H
#define DINOBATCH_DATA_SAMPLER_H

#include <stdint.h>

/* Index of the image at `position` (>= 0) of the stream over `count` (>= 1) images. */
int64_t sampler_index(int64_t count, uint64_t seed, int64_t position);

#endif
