/* corrupt_list.c - a sorted array of known indices and a queue of lines, under a mutex. */
#include "data/corrupt_list.h"

#include "base/memory.h"
#include "data/text_table.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct CorruptList {
    pthread_mutex_t mutex;
    int64_t *known; /* [count] ascending */
    int64_t count, capacity;
    TextTable lines; /* in order of discovery; those before `taken` are out */
    int64_t taken;
};

CorruptList *corrupt_list_create(void)
{
    CorruptList *list = memory_alloc(sizeof *list);
    pthread_mutex_init(&list->mutex, NULL);
    return list;
}

void corrupt_list_destroy(CorruptList *list)
{
    if (!list) return;
    pthread_mutex_destroy(&list->mutex);
    memory_free(list->known);
    text_table_destroy(&list->lines);
    memory_free(list);
}

/* Where `index` is in the known ones, or belongs. */
static int64_t place_of(const CorruptList *list, int64_t index)
{
    int64_t low = 0, high = list->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (list->known[middle] < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void corrupt_list_add(CorruptList *list, int64_t index, const char *message)
{
    pthread_mutex_lock(&list->mutex);
    int64_t place = place_of(list, index);
    if (place == list->count || list->known[place] != index) {
        if (list->count == list->capacity) {
            int64_t capacity = 2 * list->capacity + 64;
            list->known = memory_grow(list->known, (size_t)list->count * sizeof *list->known,
                                      (size_t)capacity * sizeof *list->known);
            list->capacity = capacity;
        }
        memmove(list->known + place + 1, list->known + place,
                (size_t)(list->count - place) * sizeof *list->known);
        list->known[place] = index;
        list->count++;
        text_table_append(&list->lines, message, strlen(message));
    }
    pthread_mutex_unlock(&list->mutex);
}

bool corrupt_list_take(CorruptList *list, char *text, size_t size)
{
    pthread_mutex_lock(&list->mutex);
    bool any = list->taken < list->lines.count;
    if (any) snprintf(text, size, "%s; skipped", text_table_get(&list->lines, list->taken++));
    pthread_mutex_unlock(&list->mutex);
    return any;
}
