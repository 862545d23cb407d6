/* fuzz.h - what libFuzzer calls, declared once for all targets.
 *
 * A target aborts (CHECK, or a sanitizer) on a finding and returns on everything else, whatever the input.
 * The libraries below (libjpeg, libpng, libyaml) are the system's, without instrumentation: the search is led
 * by the branches of our own code, and the mutators keep checksums right so that it gets past them.
 */
#ifndef DINOBATCH_TESTS_FUZZ_FUZZ_H
#define DINOBATCH_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* One run on data[size]; 0: the input may be kept, -1: it must not be added to the corpus. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Changes data[size] in place, at most to `max_size` bytes; returns the new size. Optional in a target. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* libFuzzer's own mutations, for use in a custom mutator. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

#endif
