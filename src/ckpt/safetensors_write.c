/* safetensors_write.c - writing: the header, then the tensors one after the other. */
#include "ckpt/safetensors.h"

#include "base/atomic_file.h"
#include "base/dtype.h"
#include "base/memory.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    ALIGNMENT = 8,   /* of the first tensor in the file, as the format's own writer has it */
    BLOCK = 1 << 18, /* numbers that are rounded at a time */
};

static const char *const TYPES[] = {
    [SAFETENSORS_F32] = "F32", [SAFETENSORS_F16] = "F16", [SAFETENSORS_BF16] = "BF16"};

static int64_t count_of(const SafetensorsSource *tensor)
{
    int64_t count = 1;
    for (int d = 0; d < tensor->ndim; d++)
        count *= tensor->shape[d];
    return count;
}

static int64_t bytes_of(const SafetensorsSource *tensor)
{
    return count_of(tensor) * (tensor->type == SAFETENSORS_F32 ? 4 : 2);
}

static void add_numbers(cJSON *entry, const char *name, const int64_t *numbers, int count)
{
    cJSON *list = cJSON_AddArrayToObject(entry, name);
    for (int i = 0; i < count; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)numbers[i]));
}

/* The header with its length in front, padded by spaces; memory_free. */
static char *header_of(const SafetensorsSource *tensors, int64_t count, size_t *size)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(cJSON_AddObjectToObject(root, "__metadata__"), "format", "pt");
    int64_t end = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t offsets[2] = {end, end + bytes_of(&tensors[i])};
        cJSON *entry = cJSON_CreateObject();
        cJSON_AddStringToObject(entry, "dtype", TYPES[tensors[i].type]);
        add_numbers(entry, "shape", tensors[i].shape, tensors[i].ndim);
        add_numbers(entry, "data_offsets", offsets, 2);
        cJSON_AddItemToObject(root, tensors[i].name, entry);
        end = offsets[1];
    }
    char *text = cJSON_PrintUnformatted(root);
    uint64_t length = strlen(text), padded = (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    char *header = memory_alloc(sizeof padded + padded);
    memcpy(header, &padded, sizeof padded);
    memcpy(header + sizeof padded, text, length);
    memset(header + sizeof padded + length, ' ', padded - length);
    cJSON_free(text);
    cJSON_Delete(root);
    *size = sizeof padded + padded;
    return header;
}

static Status write_all(int fd, const char *path, const void *data, size_t bytes, Error *error)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t n = write(fd, at, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return status_fail(error, STATUS_FAILED, "%s: cannot write: %s", path, strerror(errno));
        at += n;
        bytes -= (size_t)n;
    }
    return STATUS_OK;
}

/* halves[count] of numbers [first, first + count). */
static Status round_numbers(const char *path, const SafetensorsSource *tensor, int64_t first, int64_t count,
                            uint16_t *halves, Error *error)
{
    bool half = tensor->type == SAFETENSORS_F16;
    for (int64_t i = 0; i < count; i++) {
        float value = tensor->values[first + i];
        halves[i] = half ? dtype_f16_from_f32(value) : dtype_bf16_from_f32(value);
        float back = half ? dtype_f32_from_f16(halves[i]) : dtype_f32_from_bf16(halves[i]);
        if (isfinite(value) && !isfinite(back))
            return status_fail(error, STATUS_INPUT, "%s: %.200s: element %" PRId64 " is %g, beyond %s", path,
                               tensor->name, first + i, (double)value, TYPES[tensor->type]);
    }
    return STATUS_OK;
}

static Status write_numbers(int fd, const char *path, const SafetensorsSource *tensor, Error *error)
{
    if (tensor->type == SAFETENSORS_F32)
        return write_all(fd, path, tensor->values, (size_t)bytes_of(tensor), error);
    int64_t count = count_of(tensor);
    uint16_t *halves = memory_alloc_array(BLOCK, sizeof *halves);
    Status status = STATUS_OK;
    for (int64_t first = 0; first < count && status == STATUS_OK; first += BLOCK) {
        int64_t part = count - first < BLOCK ? count - first : BLOCK;
        status = round_numbers(path, tensor, first, part, halves, error);
        if (status == STATUS_OK) status = write_all(fd, path, halves, (size_t)part * sizeof *halves, error);
    }
    memory_free(halves);
    return status;
}

static Status write_parts(const char *temporary, const SafetensorsSource *tensors, int64_t count,
                          Error *error)
{
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return status_fail(error, STATUS_FAILED, "%s: cannot create: %s", temporary, strerror(errno));
    size_t size;
    char *header = header_of(tensors, count, &size);
    Status status = write_all(fd, temporary, header, size, error);
    memory_free(header);
    for (int64_t i = 0; i < count && status == STATUS_OK; i++)
        status = write_numbers(fd, temporary, &tensors[i], error);
    if (close(fd) != 0 && status == STATUS_OK)
        status = status_fail(error, STATUS_FAILED, "%s: cannot write: %s", temporary, strerror(errno));
    return status;
}

Status safetensors_write(const char *path, const SafetensorsSource *tensors, int64_t count, Error *error)
{
    TRY(atomic_file_make_parent(path, error));
    size_t size = strlen(path) + sizeof ".tmp";
    char *temporary = memory_alloc(size);
    snprintf(temporary, size, "%s.tmp", path);
    Status status = write_parts(temporary, tensors, count, error);
    if (status == STATUS_OK) status = atomic_file_commit(temporary, path, error);
    if (status != STATUS_OK) unlink(temporary);
    memory_free(temporary);
    return status;
}
