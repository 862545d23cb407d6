/* rng.c - Philox4x32-10 and the distributions that the recipe draws from. */
#include "base/rng.h"

#include "base/check.h"

#include <math.h>
#include <string.h>

static void philox_round(uint32_t c[4], const uint32_t k[2])
{
    uint64_t a = (uint64_t)0xD2511F53u * c[0];
    uint64_t b = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t c1 = c[1], c3 = c[3];
    c[0] = (uint32_t)(b >> 32) ^ c1 ^ k[0];
    c[1] = (uint32_t)b;
    c[2] = (uint32_t)(a >> 32) ^ c3 ^ k[1];
    c[3] = (uint32_t)a;
}

static void philox_block(Rng *rng)
{
    uint32_t key[2] = {rng->key[0], rng->key[1]};
    for (int i = 0; i < 4; i++)
        rng->block[i] = rng->counter[i];
    for (int round = 0; round < 10; round++) {
        philox_round(rng->block, key);
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    rng->counter[0]++;
    rng->used = 0;
}

Rng rng_at(uint64_t seed, RngPurpose purpose, uint64_t step, uint64_t index)
{
    /* 64 bits of index, 32 of step and purpose: the purpose sits above a step count of 2^26 epochs or 2^40
     * iterations folded into the key, so no two streams of a run coincide. */
    uint64_t key = seed ^ (step >> 24) * 0x9E3779B97F4A7C15u;
    Rng rng = {.key = {(uint32_t)key, (uint32_t)(key >> 32)},
               .counter = {0, (uint32_t)index, (uint32_t)(index >> 32),
                           (uint32_t)(step & 0xFFFFFFu) | (uint32_t)purpose << 24},
               .used = 4};
    return rng;
}

uint32_t rng_u32(Rng *rng)
{
    if (rng->used == 4) philox_block(rng);
    return rng->block[rng->used++];
}

uint64_t rng_u64(Rng *rng)
{
    uint64_t high = rng_u32(rng);
    return high << 32 | rng_u32(rng);
}

double rng_uniform01(Rng *rng)
{
    return (double)(rng_u64(rng) >> 11) * 0x1p-53;
}

double rng_uniform(Rng *rng, double a, double b)
{
    return a + (b - a) * rng_uniform01(rng);
}

int64_t rng_integer(Rng *rng, int64_t low, int64_t high)
{
    CHECK(low <= high);
    uint64_t span = (uint64_t)high - (uint64_t)low + 1;
    if (span == 0) return (int64_t)rng_u64(rng);
    uint64_t beyond = (UINT64_MAX % span + 1) % span; /* 2^64 mod span: this many top values are redrawn */
    uint64_t draw;
    do {
        draw = rng_u64(rng);
    } while (draw > UINT64_MAX - beyond);
    return (int64_t)((uint64_t)low + draw % span);
}

double rng_normal(Rng *rng)
{
    double u = 1.0 - rng_uniform01(rng);
    double v = rng_uniform01(rng);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

double rng_truncated_normal(Rng *rng, double std, double low, double high)
{
    double x;
    do {
        x = std * rng_normal(rng);
    } while (x < low || x > high);
    return x;
}

void rng_permutation(Rng *rng, int32_t *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (int32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = rng_integer(rng, 0, i);
        int32_t swapped = out[i];
        out[i] = out[j];
        out[j] = swapped;
    }
}

uint64_t rng_hash_name(const char *name)
{
    return rng_hash_bytes(RNG_HASH_START, name, strlen(name));
}

uint64_t rng_hash_bytes(uint64_t hash, const void *bytes, size_t size)
{
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ byte[i]) * 0x100000001B3u;
    return hash;
}

uint64_t rng_hash_text(uint64_t hash, const char *text)
{
    return rng_hash_bytes(hash, text, strlen(text) + 1);
}
