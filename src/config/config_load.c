/* config_load.c - configuration files. */
#include "base/memory.h"
#include "config/config_yaml.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { FILE_BYTES_MAX = 1 << 20 };

Status config_load_text(Config *config, const char *name, const char *yaml, size_t size, Error *error)
{
    if (size > FILE_BYTES_MAX)
        return status_fail(error, STATUS_INPUT, "%s: expected a configuration of at most 1 MiB, got more",
                           name);
    ConfigYamlPlace place = {.source = name, .has_lines = true, .prefix = ""};
    return config_yaml_read(config, &place, yaml, size, error);
}

Status config_load_file(Config *config, const char *path, Error *error)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return status_fail(error, STATUS_INPUT, "%s: expected a configuration file: %s", path,
                           strerror(errno));
    /* One byte more than allowed tells a file of the limit from a longer one (or an endless device). */
    char *text = memory_alloc(FILE_BYTES_MAX + 1);
    errno = 0;
    size_t size = fread(text, 1, FILE_BYTES_MAX + 1, file);
    Status status = STATUS_OK;
    if (ferror(file))
        status =
            status_fail(error, STATUS_INPUT, "%s: expected a configuration file: %s", path, strerror(errno));
    fclose(file);
    if (status == STATUS_OK) status = config_load_text(config, path, text, size, error);
    memory_free(text);
    return status;
}
