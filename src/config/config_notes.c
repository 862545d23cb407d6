/* config_notes.c - keys that the user set although they have no effect, a line for each reason. */
#include "base/memory.h"
#include "config/config_text.h"
#include "config/config_value.h"

#include <string.h>

/* Why setting this key is worth a line, or NULL. */
static const char *reason_of(const Config *config, int index)
{
    return config->origins[index].source ? config_keys_at(index)->inert : NULL;
}

/* "FILE:LINE: first.key and N more: no effect: reason" */
static char *note_line(const Config *config, int index, int more, const char *reason)
{
    ConfigText text = {0};
    const ConfigOrigin *origin = &config->origins[index];
    config_text_append(&text, "%s", origin->source);
    if (origin->line > 0) config_text_append(&text, ":%lld", (long long)origin->line);
    config_text_append(&text, ": %s", config_keys_at(index)->name);
    if (more > 0) config_text_append(&text, " and %d more like it", more);
    config_text_append(&text, ": no effect: %s", reason);
    return text.data;
}

void config_notes_init(ConfigNotes *notes, const Config *config)
{
    int keys = config_keys_count();
    const char **reasons = memory_alloc_array((size_t)keys, sizeof *reasons);
    for (int i = 0; i < keys; i++)
        reasons[i] = reason_of(config, i);

    *notes = (ConfigNotes){.lines = memory_alloc_array((size_t)keys, sizeof *notes->lines)};
    for (int i = 0; i < keys; i++) {
        if (!reasons[i]) continue;
        int more = 0;
        for (int j = i + 1; j < keys; j++) {
            if (!reasons[j] || strcmp(reasons[i], reasons[j]) != 0) continue;
            more++;
            reasons[j] = NULL;
        }
        notes->lines[notes->count++] = note_line(config, i, more, reasons[i]);
    }
    memory_free(reasons);
}

void config_notes_fini(ConfigNotes *notes)
{
    for (int i = 0; i < notes->count; i++)
        memory_free(notes->lines[i]);
    memory_free(notes->lines);
    *notes = (ConfigNotes){0};
}
