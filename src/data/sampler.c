/* sampler.c - a Feistel permutation with cycle-walking. */
#include "data/sampler.h"

#include "base/check.h"
#include "base/rng.h"

enum { ROUNDS = 8 };

/* Finaliser of MurmurHash3 (64 bits): every input bit flips every output bit with probability near 1/2. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 33) * 0xFF51AFD7ED558CCDu;
    x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53u;
    return x ^ x >> 33;
}

/* Bits of one half: the network permutes 0 .. 2^(2 * half) - 1, which is at most four times `count`. */
static int half_bits(uint64_t count)
{
    int half = 1;
    while (half < 32 && count > (uint64_t)1 << 2 * half)
        half++;
    return half;
}

static uint64_t permute(uint64_t x, int half, const uint64_t keys[ROUNDS])
{
    uint64_t mask = ((uint64_t)1 << half) - 1;
    uint64_t left = x >> half, right = x & mask;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t next = left ^ (mix(right ^ keys[round]) & mask);
        left = right;
        right = next;
    }
    return left << half | right;
}

int64_t sampler_index(int64_t count, uint64_t seed, int64_t position)
{
    CHECK(count >= 1 && position >= 0);
    Rng rng = rng_at(seed, RNG_SAMPLER, (uint64_t)(position / count), 0);
    uint64_t keys[ROUNDS];
    for (int round = 0; round < ROUNDS; round++)
        keys[round] = rng_u64(&rng);
    int half = half_bits((uint64_t)count);
    uint64_t x = (uint64_t)(position % count);
    /* Walking along the cycle of x until it comes back into range keeps the map one-to-one. */
    do {
        x = permute(x, half, keys);
    } while (x >= (uint64_t)count);
    return (int64_t)x;
}
