/* config_keys.c - the sections as one table; looking up names, also misspelt ones. */
#include "config/config_keys.h"

#include "base/check.h"

#include <stdio.h>
#include <string.h>

enum { NAME_MAX_LENGTH = 96 }; /* of known names, and how much of an unknown one is compared */

int config_keys_count(void)
{
    return CONFIG_KEYS_PRECISION_COUNT + CONFIG_KEYS_MODEL_COUNT + CONFIG_KEYS_TRAIN_COUNT +
           CONFIG_KEYS_DATA_COUNT + CONFIG_KEYS_CURATION_COUNT;
}

const ConfigKey *config_keys_at(int index)
{
    CHECK(index >= 0);
    if (index < CONFIG_KEYS_PRECISION_COUNT) return &CONFIG_KEYS_PRECISION[index];
    index -= CONFIG_KEYS_PRECISION_COUNT;
    if (index < CONFIG_KEYS_MODEL_COUNT) return &CONFIG_KEYS_MODEL[index];
    index -= CONFIG_KEYS_MODEL_COUNT;
    if (index < CONFIG_KEYS_TRAIN_COUNT) return &CONFIG_KEYS_TRAIN[index];
    index -= CONFIG_KEYS_TRAIN_COUNT;
    if (index < CONFIG_KEYS_DATA_COUNT) return &CONFIG_KEYS_DATA[index];
    index -= CONFIG_KEYS_DATA_COUNT;
    CHECK(index < CONFIG_KEYS_CURATION_COUNT);
    return &CONFIG_KEYS_CURATION[index];
}

int config_keys_find(const char *name)
{
    for (int i = 0; i < config_keys_count(); i++)
        if (strcmp(config_keys_at(i)->name, name) == 0) return i;
    return -1;
}

int config_keys_section(const char *name)
{
    size_t length = strlen(name);
    if (length == 0) return -1;
    for (int i = 0; i < config_keys_count(); i++) {
        const char *key = config_keys_at(i)->name;
        if (strncmp(key, name, length) == 0 && key[length] == '.') return i;
    }
    return -1;
}

/* Levenshtein distance of the first NAME_MAX_LENGTH characters. */
static int edit_distance(const char *a, const char *b)
{
    int row[NAME_MAX_LENGTH + 1];
    int rows = (int)strnlen(a, NAME_MAX_LENGTH), columns = (int)strnlen(b, NAME_MAX_LENGTH);
    for (int j = 0; j <= columns; j++)
        row[j] = j;
    for (int i = 1; i <= rows; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= columns; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[columns];
}

static const char *last_component(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* Doubled, so that a match of the last component alone loses against an equally near whole name. */
static int distance_of_names(const char *name, const char *known)
{
    int whole = 2 * edit_distance(name, known);
    int last = 2 * edit_distance(last_component(name), last_component(known)) + 1;
    return last < whole ? last : whole;
}

void config_keys_nearest(const char *name, char *nearest, size_t size)
{
    int best = -1;
    for (int i = 0; i < config_keys_count(); i++) {
        const char *key = config_keys_at(i)->name;
        /* The key itself and each section that it lies in; ends are the dots and the terminator. */
        for (size_t end = strcspn(key, ".");; end += 1 + strcspn(key + end + 1, ".")) {
            char known[NAME_MAX_LENGTH + 1];
            CHECK(end < sizeof known);
            memcpy(known, key, end);
            known[end] = '\0';
            int distance = distance_of_names(name, known);
            if (best < 0 || distance < best) {
                best = distance;
                snprintf(nearest, size, "%s", known);
            }
            if (key[end] == '\0') break;
        }
    }
}
