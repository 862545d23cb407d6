/* h5_damage.c - see h5_damage.h. */
#include "h5_damage.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEAL_BYTES_MAX = 16384, CHECKSUM_BYTES = 4 };

/* Of libhdf5: the checksum of its structures. Its headers for programs leave it out. */
uint32_t H5_checksum_metadata(const void *data, size_t size, uint32_t start);

/* --- learning --- */

/* What libhdf5's structures with a checksum begin with. */
static bool is_signature(const uint8_t *at, size_t left)
{
    static const char words[][5] = {"\x89HDF", "OHDR", "OCHK", "FRHP", "FHIB", "BTHD", "BTLF", "BTIN"};
    for (size_t i = 0; left >= 4 && i < sizeof words / sizeof *words; i++)
        if (memcmp(at, words[i], 4) == 0) return true;
    return false;
}

/* How long a structure is, told by its checksum; 0: it has none. */
static size_t seal_bytes(const uint8_t *at, size_t left)
{
    for (size_t n = 8; n < SEAL_BYTES_MAX && n + CHECKSUM_BYTES <= left; n++) {
        uint32_t sum = H5_checksum_metadata(at, n, 0);
        if (memcmp(&sum, at + n, sizeof sum) == 0) return n;
    }
    return 0;
}

void h5_damage_learn(H5Victim *victim, const char *path)
{
    *victim = (H5Victim){.path = path};
    int fd = open(path, O_RDONLY);
    struct stat info;
    CHECK(fd >= 0 && fstat(fd, &info) == 0 && info.st_size > 0);
    victim->size = (size_t)info.st_size;
    victim->bytes = memory_alloc(victim->size);
    CHECK(pread(fd, victim->bytes, victim->size, 0) == (ssize_t)victim->size);
    close(fd);
    victim->seals = memory_alloc_array(victim->size / 8 + 1, sizeof *victim->seals);
    for (size_t at = 0; at < victim->size; at++) {
        if (!is_signature(victim->bytes + at, victim->size - at)) continue;
        size_t bytes = seal_bytes(victim->bytes + at, victim->size - at);
        if (bytes) victim->seals[victim->seal_count++] = (H5Seal){at, bytes};
    }
    CHECK(victim->seal_count > 0);
}

void h5_damage_fini(H5Victim *victim)
{
    memory_free(victim->bytes);
    memory_free(victim->seals);
    *victim = (H5Victim){0};
}

/* --- damaging --- */

static size_t below(Rng *rng, size_t n)
{
    return (size_t)rng_integer(rng, 0, (int64_t)n - 1);
}

/* Numbers that a length, a count or an address should not be. */
static uint64_t odd_number(const H5Victim *victim, Rng *rng)
{
    const uint64_t numbers[] = {0,           1,           0x7F,        0xFF, 0xFFFF,       0x7FFFFFFF,
                                0xFFFFFFFFu, INT64_MAX,   UINT64_MAX,  48,   victim->size, victim->size - 8,
                                1u << 20,    1ull << 40u, rng_u32(rng)};
    size_t i = below(rng, sizeof numbers / sizeof *numbers + 2);
    if (i < sizeof numbers / sizeof *numbers) return numbers[i];
    return victim->seals[below(rng, victim->seal_count)].first; /* another structure's place */
}

/* Up to eight bytes of [first, first + room) of `bytes` become others. */
static void write_odd(const H5Victim *victim, Rng *rng, uint8_t *bytes, size_t first, size_t room)
{
    static const size_t widths[] = {1, 1, 2, 4, 8};
    size_t width = widths[below(rng, sizeof widths / sizeof *widths)];
    if (width > room) width = room;
    size_t at = first + below(rng, room - width + 1);
    uint64_t number = odd_number(victim, rng);
    if (width == 1 && below(rng, 2))
        bytes[at] ^= (uint8_t)(1u << below(rng, 8));
    else
        memcpy(bytes + at, &number, width);
}

static void malice(const H5Victim *victim, Rng *rng, uint8_t *bytes, char *told, size_t room)
{
    H5Seal seal = victim->seals[below(rng, victim->seal_count)];
    size_t times = 1 + below(rng, 3);
    for (size_t i = 0; i < times; i++)
        write_odd(victim, rng, bytes, seal.first + 4, seal.bytes - 4);
    uint32_t sum = H5_checksum_metadata(bytes + seal.first, seal.bytes, 0);
    memcpy(bytes + seal.first + seal.bytes, &sum, sizeof sum);
    snprintf(told, room, "%zu places in the %.4s at %zu", times, (const char *)bytes + seal.first,
             seal.first);
}

/* Returns the new size. Bytes that are moved may bring their checksum along. */
static size_t noise(const H5Victim *victim, Rng *rng, uint8_t *bytes, bool *sealed, char *told, size_t room)
{
    size_t size = victim->size, at = below(rng, size), many = 1 + below(rng, 64);
    if (many > size - at) many = size - at;
    switch (below(rng, 5)) {
    case 0:
        snprintf(told, room, "cut to %zu", at);
        return at;
    case 1:
        snprintf(told, room, "%zu bytes behind", many);
        for (size_t i = 0; i < many; i++)
            bytes[size + i] = (uint8_t)rng_u32(rng);
        return size + many;
    case 2:
        snprintf(told, room, "%zu bytes to %zu", many, at);
        *sealed = true;
        memmove(bytes + at, bytes + below(rng, size - many + 1), many);
        return size;
    case 3:
        snprintf(told, room, "a number at %zu", at);
        write_odd(victim, rng, bytes, at, size - at);
        return size;
    default:
        snprintf(told, room, "a bit at %zu", at);
        bytes[at] ^= (uint8_t)(1u << below(rng, 8));
        return size;
    }
}

static void write_file(const char *path, const uint8_t *bytes, size_t size)
{
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0 && pwrite(fd, bytes, size, 0) == (ssize_t)size && ftruncate(fd, (off_t)size) == 0);
    close(fd);
}

void h5_damage_apply(const H5Victim *victim, uint64_t seed, uint64_t number, bool *sealed, char *told,
                     size_t size)
{
    Rng rng = rng_at(seed, RNG_TEST, 71, number);
    uint8_t *bytes = memory_alloc(victim->size + 64);
    memcpy(bytes, victim->bytes, victim->size);
    size_t length = victim->size;
    *sealed = number % 2;
    if (*sealed)
        malice(victim, &rng, bytes, told, size);
    else
        length = noise(victim, &rng, bytes, sealed, told, size);
    write_file(victim->path, bytes, length);
    memory_free(bytes);
}

void h5_damage_undo(const H5Victim *victim)
{
    write_file(victim->path, victim->bytes, victim->size);
}
