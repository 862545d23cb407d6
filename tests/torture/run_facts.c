/* run_facts.c - see run_facts.h. */
#include "run_facts.h"

#include "base/check.h"
#include "ckpt/retention.h"
#include "h5/h5_check.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 512, TAIL_BYTES = 4096 };

RunFacts run_facts_look(const char *run)
{
    char folder[PATH_BYTES], path[PATH_BYTES];
    RetentionList list;
    Error error;
    snprintf(folder, sizeof folder, "%s/checkpoints", run);
    CHECK(retention_list(folder, &list, &error) == STATUS_OK);
    RunFacts facts = {.named = retention_read_last(folder), .newest = -1, .older = -1};
    for (int64_t i = list.count - 1; i >= 0 && facts.older < 0; i--) {
        int64_t number = list.numbers[i];
        if (facts.named >= 0 && number > facts.named) continue;
        CHECK(retention_path(folder, number, path, sizeof path, &error) == STATUS_OK);
        bool whole = h5_check_file(path, "checkpoint", H5_CHECK_CHECKSUMS, NULL, &error) == STATUS_OK;
        if (facts.newest < 0) facts.damaged += !whole;
        if (whole) *(facts.newest < 0 ? &facts.newest : &facts.older) = number;
    }
    retention_list_fini(&list);
    return facts;
}

/* A line is a JSON object that begins with its iteration; the last one may be torn. */
int64_t run_facts_last_metrics(const char *run)
{
    char path[PATH_BYTES], tail[TAIL_BYTES + 1];
    snprintf(path, sizeof path, "%s/training_metrics.json", run);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    off_t size = lseek(fd, 0, SEEK_END);
    ssize_t got = pread(fd, tail, TAIL_BYTES, size > TAIL_BYTES ? size - TAIL_BYTES : 0);
    close(fd);
    tail[got > 0 ? got : 0] = '\0';
    static const char key[] = "{\"iteration\": ";
    long long last = -1;
    for (const char *at = tail; (at = strstr(at, key)); at++)
        if (strchr(at, '\n')) last = strtoll(at + sizeof key - 1, NULL, 10);
    return last;
}

bool run_facts_has_file(const char *run, const char *ending)
{
    DIR *all = opendir(run);
    bool found = false;
    for (struct dirent *entry; all && !found && (entry = readdir(all));) {
        char path[PATH_BYTES];
        size_t length = strlen(entry->d_name), end = strlen(ending);
        if (entry->d_name[0] == '.') continue;
        CHECK(snprintf(path, sizeof path, "%s/%s", run, entry->d_name) < PATH_BYTES);
        found = (length > end && strcmp(entry->d_name + length - end, ending) == 0) ||
                (entry->d_type == DT_DIR && run_facts_has_file(path, ending));
    }
    if (all) closedir(all);
    return found;
}
