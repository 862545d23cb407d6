/* skipped_images.c - see skipped_images.h. */
#include "features/skipped_images.h"

#include "base/memory.h"

enum { LINES = 10, LINE_BYTES = 512 };

void skipped_images_log(EvalLoader *loader, Comm *comm, Log *log)
{
    char(*mine)[LINE_BYTES] = memory_alloc(LINES * sizeof *mine);
    char further[LINE_BYTES];
    int64_t named = 0, unnamed = 0;
    while (eval_loader_report(loader, named < LINES ? mine[named] : further, LINE_BYTES)) {
        if (named < LINES)
            named++;
        else
            unnamed++;
    }
    int64_t any = named;
    comm_all_reduce(comm, &any, 1, DTYPE_I64, COMM_SUM, NULL);
    comm_all_reduce(comm, &unnamed, 1, DTYPE_I64, COMM_SUM, NULL);
    if (any > 0) {
        size_t lines = (size_t)comm_size(comm) * LINES;
        char(*all)[LINE_BYTES] = memory_alloc(lines * sizeof *all);
        comm_all_gather(comm, all, mine, LINES * LINE_BYTES, DTYPE_U8, NULL);
        for (size_t i = 0; i < lines; i++)
            if (all[i][0] != '\0') log_warning(log, "%s", all[i]);
        if (unnamed > 0) log_warning(log, "and %lld more images that cannot be read", (long long)unnamed);
        memory_free(all);
    }
    memory_free(mine);
}
