/* test_config_mutation.c - thousands of damaged configurations: each is refused in one line or read, never
 * worse.
 *
 * What is read must dump and read back. Memory errors show in the sanitizer builds of this test.
 */
#include "base/memory.h"
#include "base/rng.h"
#include "config/config.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <string.h>

enum { ROUNDS = 4000, EDITS_MAX = 3 };

static const char *const FRAGMENTS[] = {
    "\n",    "  ",           ": ",          "- ",       "[",        "]",  "{",   "}",
    "&a ",   "*a",           "!!str ",      "\"",       "'",        "#",  "? ",  "|\n",
    "---\n", "...\n",        "%YAML 1.1\n", "null",     "1e999",    "-1", "0.5", "<<: *a\n",
    "\xff",  "\xef\xbb\xbf", "\xc2\x85",    "optim:\n", "epochs: ", "\t", "\\",  "\x01"};

enum { FRAGMENT_COUNT = sizeof FRAGMENTS / sizeof *FRAGMENTS };

/* One random edit in place: another digit, or change, delete, repeat or insert anything. `capacity` bounds
 * the result. */
static size_t edit(Rng *rng, char *text, size_t size, size_t capacity)
{
    size_t at = (size_t)rng_integer(rng, 0, (int64_t)size - 1), rest = size - at;
    size_t span = (size_t)rng_integer(rng, 1, rest < 40 ? (int64_t)rest : 40);
    const char *fragment = FRAGMENTS[rng_integer(rng, 0, FRAGMENT_COUNT - 1)];
    size_t length = strlen(fragment);
    switch (rng_integer(rng, 0, 5)) {
    case 0:
        text[at] = (char)rng_integer(rng, 0, 255);
        return size;
    case 1:
        if (span == size) return size;
        memmove(text + at, text + at + span, rest - span);
        return size - span;
    case 2:
        if (size + span > capacity) return size;
        memmove(text + at + span, text + at, rest);
        return size + span;
    case 3:
        if (size + length > capacity) return size;
        memmove(text + at + length, text + at, rest);
        memcpy(text + at, fragment, length);
        return size + length;
    default:
        while (at < size && !isdigit((unsigned char)text[at]))
            at++;
        if (at < size) text[at] = (char)rng_integer(rng, '0', '9');
        return size;
    }
}

static void expect_round_trip(const Config *config)
{
    Config again;
    Error error = {0};
    config_init(&again);
    char *dump = config_dump(config);
    cr_assert(config_load_text(&again, "dump", dump, strlen(dump), &error) == STATUS_OK, "%s", error.text);
    char *second = config_dump(&again);
    cr_assert(strcmp(dump, second) == 0);
    memory_free(dump);
    memory_free(second);
    config_fini(&again);
}

Test(config_mutation, damaged_files_are_read_or_refused)
{
    Config config;
    config_init(&config);
    char *dump = config_dump(&config);
    config_fini(&config);
    size_t length = strlen(dump), capacity = 2 * length;
    char *text = memory_alloc(capacity);
    int accepted = 0, refused = 0;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        Rng rng = rng_at(20, RNG_TEST, round, 0);
        size_t size = length;
        memcpy(text, dump, length);
        for (int64_t edits = rng_integer(&rng, 1, EDITS_MAX); edits > 0; edits--)
            size = edit(&rng, text, size, capacity);
        Error error = {0};
        config_init(&config);
        Status status = config_load_text(&config, "a.yaml", text, size, &error);
        cr_assert(status == STATUS_OK || status == STATUS_INPUT);
        cr_assert((status == STATUS_OK) == (error.text[0] == '\0'));
        cr_assert(strchr(error.text, '\n') == NULL);
        if (status == STATUS_OK) {
            accepted++;
            config_check(&config, &error);
            if (accepted % 8 == 0) expect_round_trip(&config);
        } else {
            refused++;
            cr_assert(strncmp(error.text, "a.yaml:", 7) == 0, "%s", error.text);
        }
        config_fini(&config);
    }
    cr_assert(accepted > ROUNDS / 20 && refused > ROUNDS / 4, "%d accepted, %d refused", accepted, refused);
    memory_free(text);
    memory_free(dump);
}

/* Random texts after a known key, as a user's command line may hold them. */
Test(config_mutation, random_overrides)
{
    static const char *const keys[] = {
        "optim.epochs=", "train.dataset_path=", "crops.local_crops_scale=", "optim=",
        "student.arch=", "evaluation.knn_k=",   "student.qkv_bias=",        ""};
    for (uint64_t round = 0; round < ROUNDS; round++) {
        Rng rng = rng_at(21, RNG_TEST, round, 0);
        char text[256];
        size_t used = (size_t)(stpcpy(text, keys[rng_integer(&rng, 0, 7)]) - text);
        for (int64_t parts = rng_integer(&rng, 0, 8); parts > 0; parts--)
            used = (size_t)(stpcpy(text + used, FRAGMENTS[rng_integer(&rng, 0, FRAGMENT_COUNT - 1)]) - text);
        Config config;
        Error error = {0};
        config_init(&config);
        Status status = config_override(&config, text, &error);
        cr_assert(status == STATUS_OK || status == STATUS_INPUT);
        if (status == STATUS_INPUT)
            cr_assert(strncmp(error.text, "command line: ", 14) == 0, "%s", error.text);
        else
            expect_round_trip(&config);
        config_fini(&config);
    }
}
