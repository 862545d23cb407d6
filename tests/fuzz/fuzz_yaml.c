/* fuzz_yaml.c - any text as a configuration file, and as an override on the command line: read or refused in
 * one line, and what was read dumps to a text that reads back to the same values.
 */
#include "fuzz.h"

#include "base/check.h"
#include "base/memory.h"
#include "config/config.h"

#include <stdbool.h>
#include <string.h>
#include <zlib.h>

enum {
    OVERRIDE_BYTES = 200,
    ROUND_TRIPS = 8, /* one input in so many, told by its content: reading all keys back costs 20 readings */
};

static void check_message(Status status, const Error *error, const char *begins)
{
    CHECK(status == STATUS_OK || status == STATUS_INPUT);
    CHECK((status == STATUS_OK) == (error->text[0] == '\0'));
    CHECK(strchr(error->text, '\n') == NULL);
    if (begins && status != STATUS_OK) CHECK(strncmp(error->text, begins, strlen(begins)) == 0);
}

static void check_round_trip(const Config *config)
{
    Config again;
    Error error = {0};
    config_init(&again);
    char *dump = config_dump(config);
    CHECK(config_load_text(&again, "dump", dump, strlen(dump), &error) == STATUS_OK);
    char *second = config_dump(&again);
    CHECK(strcmp(dump, second) == 0);
    ConfigDiff diff;
    config_diff_init(&diff, config, &again);
    CHECK(diff.count == 0);
    config_diff_fini(&diff);
    memory_free(dump);
    memory_free(second);
    config_fini(&again);
}

/* Everything that a program does with a configuration before it acts on it. */
static void use(const Config *config, bool also_round_trip)
{
    Error error = {0};
    check_message(config_check(config, &error), &error, NULL);
    ConfigNotes notes;
    config_notes_init(&notes, config);
    for (int i = 0; i < notes.count; i++)
        CHECK(strchr(notes.lines[i], '\n') == NULL);
    config_notes_fini(&notes);
    Config defaults;
    config_init(&defaults);
    error = (Error){0};
    check_message(config_diff_check_resume(&defaults, config, &error), &error, NULL);
    config_fini(&defaults);
    if (also_round_trip) check_round_trip(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Config config;
    Error error = {0};
    config_init(&config);
    Status status = config_load_text(&config, "a.yaml", (const char *)data, size, &error);
    check_message(status, &error, "a.yaml:");
    bool also_round_trip = crc32_z(0, data, size) % ROUND_TRIPS == 0;
    if (status == STATUS_OK) use(&config, also_round_trip);
    if (size < OVERRIDE_BYTES && !memchr(data, 0, size)) {
        char *assignment = memory_strndup((const char *)data, size);
        error = (Error){0};
        status = config_override(&config, assignment, &error);
        check_message(status, &error, "command line: ");
        memory_free(assignment);
        if (status == STATUS_OK) use(&config, also_round_trip);
    }
    config_fini(&config);
    return 0;
}
