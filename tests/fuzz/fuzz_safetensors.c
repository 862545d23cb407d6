/* fuzz_safetensors.c - any bytes as a safetensors file: taken, with every byte in one tensor, or refused in
 * one line. Each input is tried as the whole file, and as a header up to the first NUL with tensors behind
 * it: the length in front is right then, and mutations of the text get past it. The whole is tried as an
 * index of several files, too.
 */
#include "fuzz.h"

#include "base/check.h"
#include "base/memory.h"
#include "ckpt/safetensors.h"
#include "ckpt/safetensors_index.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void check_message(Status status, const Error *error, const char *path)
{
    CHECK(status == STATUS_OK || status == STATUS_INPUT);
    CHECK((status == STATUS_OK) == (error->text[0] == '\0'));
    CHECK(strchr(error->text, '\n') == NULL);
    if (status != STATUS_OK) CHECK(strncmp(error->text, path, strlen(path)) == 0);
}

static void use(const SafetensorsFile *file, size_t size)
{
    int64_t bytes = file->data;
    for (int64_t t = 0; t < file->count; t++) {
        const SafetensorsTensor *tensor = &file->tensors[t];
        Error error = {0};
        CHECK(safetensors_find(file, tensor->name) == tensor);
        float *values = memory_alloc_array((size_t)tensor->count, sizeof *values);
        check_message(safetensors_read(file, tensor, 0, tensor->count, values, &error), &error, file->path);
        memory_free(values);
        bytes += tensor->bytes;
    }
    CHECK(bytes == (int64_t)size);
}

static void try_file(const void *bytes, size_t size)
{
    char path[64];
    int fd = memfd_create("fuzz", 0);
    CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    SafetensorsFile file;
    Error error = {0};
    Status status = safetensors_open(&file, path, &error);
    check_message(status, &error, path);
    if (status == STATUS_OK) use(&file, size);
    safetensors_close(&file);
    error = (Error){0};
    status = safetensors_index_open(&file, path, &error); /* of files that are not there */
    check_message(status, &error, path);
    safetensors_close(&file);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_file(data, size);
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    uint64_t length = end ? (uint64_t)(end - data) : size;
    size_t rest = end ? size - length - 1 : 0;
    uint8_t *whole = memory_alloc(sizeof length + length + rest);
    memcpy(whole, &length, sizeof length);
    if (length) memcpy(whole + sizeof length, data, length);
    if (rest) memcpy(whole + sizeof length + length, end + 1, rest);
    try_file(whole, sizeof length + length + rest);
    memory_free(whole);
    return 0;
}
