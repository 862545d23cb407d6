/* corrupt_list.c - one sorted array of the images that are known to be corrupt, under a mutex. */
#include "data/corrupt_list.h"

#include "base/memory.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    int64_t index;
    int64_t round; /* the earliest that met it */
    char *message; /* owned; NULL: told */
} Item;

struct CorruptList {
    pthread_mutex_t mutex;
    Item *items; /* [count] by index */
    int64_t count, capacity;
    int64_t told;      /* of them */
    int64_t delivered; /* last round handed out */
};

CorruptList *corrupt_list_create(void)
{
    CorruptList *list = memory_alloc(sizeof *list);
    pthread_mutex_init(&list->mutex, NULL);
    list->delivered = -1;
    return list;
}

void corrupt_list_destroy(CorruptList *list)
{
    if (!list) return;
    pthread_mutex_destroy(&list->mutex);
    for (int64_t i = 0; i < list->count; i++)
        memory_free(list->items[i].message);
    memory_free(list->items);
    memory_free(list);
}

/* The item of image `index`, made if there is none; *made says so. With the mutex held. */
static Item *item_of(CorruptList *list, int64_t index, bool *made)
{
    int64_t low = 0, high = list->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (list->items[middle].index < index)
            low = middle + 1;
        else
            high = middle;
    }
    *made = low == list->count || list->items[low].index != index;
    if (*made) {
        if (list->count == list->capacity) {
            int64_t capacity = 2 * list->capacity + 64;
            list->items = memory_grow(list->items, (size_t)list->count * sizeof *list->items,
                                      (size_t)capacity * sizeof *list->items);
            list->capacity = capacity;
        }
        memmove(list->items + low + 1, list->items + low, (size_t)(list->count++ - low) * sizeof(Item));
        list->items[low] = (Item){.index = index};
    }
    return &list->items[low];
}

void corrupt_list_add(CorruptList *list, int64_t index, int64_t round, const char *message)
{
    pthread_mutex_lock(&list->mutex);
    bool made;
    Item *item = item_of(list, index, &made);
    if (made) item->message = memory_strdup(message);
    if (made || round < item->round) item->round = round;
    pthread_mutex_unlock(&list->mutex);
}

void corrupt_list_deliver(CorruptList *list, int64_t round)
{
    pthread_mutex_lock(&list->mutex);
    list->delivered = round;
    pthread_mutex_unlock(&list->mutex);
}

static bool is_news(const CorruptList *list, const Item *item)
{
    return item->message && item->round <= list->delivered;
}

static int64_t count_news(CorruptList *list)
{
    pthread_mutex_lock(&list->mutex);
    int64_t news = 0;
    if (list->told < list->count)
        for (int64_t i = 0; i < list->count; i++)
            news += is_news(list, &list->items[i]);
    pthread_mutex_unlock(&list->mutex);
    return news;
}

bool corrupt_list_has_news(CorruptList *list)
{
    return count_news(list) > 0;
}

/* --- telling --- */

/* What a rank says to the others. */
typedef struct {
    int64_t index; /* -1: nothing */
    char message[sizeof((Error *)0)->text];
} Record;

enum { GATHERED_RECORDS = 4096 }; /* of all ranks in one go, 4 MB */

/* The first `most` news of this rank. */
static void copy_news(CorruptList *list, Record *records, int64_t most)
{
    pthread_mutex_lock(&list->mutex);
    int64_t copied = 0;
    for (int64_t i = 0; i < list->count && copied < most; i++) {
        const Item *item = &list->items[i];
        if (!is_news(list, item)) continue;
        records[copied].index = item->index;
        snprintf(records[copied++].message, sizeof records->message, "%s", item->message);
    }
    pthread_mutex_unlock(&list->mutex);
    for (; copied < most; copied++)
        records[copied].index = -1;
}

/* Whether `index` was not told before; from now on it was. */
static bool mark_told(CorruptList *list, int64_t index)
{
    pthread_mutex_lock(&list->mutex);
    bool made;
    Item *item = item_of(list, index, &made);
    bool first = made || item->message;
    memory_free(item->message);
    item->message = NULL;
    list->told += first;
    pthread_mutex_unlock(&list->mutex);
    return first;
}

void corrupt_list_tell(CorruptList *list, Comm *comm, Log *log)
{
    int ranks = comm ? comm_size(comm) : 1;
    for (;;) {
        int64_t most = count_news(list);
        if (comm) comm_all_reduce(comm, &most, 1, DTYPE_I64, COMM_MAX, NULL);
        if (most == 0) return;
        if (most > GATHERED_RECORDS / ranks + 1) most = GATHERED_RECORDS / ranks + 1;
        Record *mine = memory_alloc_array((size_t)most, sizeof *mine);
        Record *all = memory_alloc_array((size_t)(most * ranks), sizeof *all);
        copy_news(list, mine, most);
        if (comm)
            comm_all_gather(comm, all, mine, most * (int64_t)sizeof *mine, DTYPE_U8, NULL);
        else
            memcpy(all, mine, (size_t)most * sizeof *mine);
        for (int64_t i = 0; i < most * ranks; i++)
            if (all[i].index >= 0 && mark_told(list, all[i].index))
                log_warning(log, "%s; skipped", all[i].message);
        memory_free(all);
        memory_free(mine);
    }
}

int64_t corrupt_list_total(const CorruptList *list)
{
    return list->told; /* changed by the thread that tells alone */
}

void corrupt_list_tell_total(const CorruptList *list, Log *log, const char *fate)
{
    if (list->told > 0)
        log_warning(log, "%lld file%s could not be decoded; %s", (long long)list->told,
                    list->told == 1 ? "" : "s", fate);
}
