/* config_diff.c - in which keys two configurations differ, and whether a resumed run may. */
#include "base/memory.h"
#include "config/config_text.h"
#include "config/config_value.h"

void config_diff_init(ConfigDiff *diff, const Config *before, const Config *after)
{
    int keys = config_keys_count();
    *diff = (ConfigDiff){.items = memory_alloc_array((size_t)keys, sizeof *diff->items)};
    for (int i = 0; i < keys; i++) {
        const ConfigKey *key = config_keys_at(i);
        if (config_value_equal(before, after, key)) continue;
        diff->items[diff->count++] = (ConfigDifference){.key = key->name,
                                                        .before = config_value_format(before, key),
                                                        .after = config_value_format(after, key),
                                                        .may_change = key->may_change || key->inert};
    }
}

void config_diff_fini(ConfigDiff *diff)
{
    for (int i = 0; i < diff->count; i++) {
        memory_free(diff->items[i].before);
        memory_free(diff->items[i].after);
    }
    memory_free(diff->items);
    *diff = (ConfigDiff){0};
}

Status config_diff_check_resume(const Config *saved, const Config *now, Error *error)
{
    ConfigDiff diff;
    ConfigText list = {0};
    config_diff_init(&diff, saved, now);
    for (int i = 0; i < diff.count; i++) {
        const ConfigDifference *item = &diff.items[i];
        if (item->may_change) continue;
        config_text_append(&list, "%s%s (%s, now %s)", list.length ? ", " : "", item->key, item->before,
                           item->after);
    }
    Status status = STATUS_OK;
    if (list.length)
        status =
            status_fail(error, STATUS_INPUT,
                        "expected the configuration of the checkpoint, got other values of %s", list.data);
    memory_free(list.data);
    config_diff_fini(&diff);
    return status;
}
