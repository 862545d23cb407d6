/* safetensors.c - reading: header, checks, values. */
#include "ckpt/safetensors.h"

#include "base/dtype.h"
#include "base/memory.h"
#include "ckpt/safetensors_index.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are taken as they lie in the file");

enum {
    LENGTH_BYTES = 8,
    /* The format allows 100 MB. A thousand tensors take 150 kB, and a parsed header takes 40 times its text
     * at worst. */
    HEADER_MAX = 16 << 20,
    BLOCK_BYTES = 1 << 20,
};

/* Whole numbers up to here are exact in JSON's doubles. */
static const double EXACT_MAX = 9007199254740992.0;

static const struct {
    const char *name;
    SafetensorsType type;
    size_t item;
} TYPES[] = {
    {"F32", SAFETENSORS_F32, 4},   {"F16", SAFETENSORS_F16, 2},       {"BF16", SAFETENSORS_BF16, 2},
    {"F64", SAFETENSORS_F64, 8},   {"BOOL", SAFETENSORS_OTHER, 1},    {"U8", SAFETENSORS_OTHER, 1},
    {"I8", SAFETENSORS_OTHER, 1},  {"F8_E4M3", SAFETENSORS_OTHER, 1}, {"F8_E5M2", SAFETENSORS_OTHER, 1},
    {"I16", SAFETENSORS_OTHER, 2}, {"U16", SAFETENSORS_OTHER, 2},     {"I32", SAFETENSORS_OTHER, 4},
    {"U32", SAFETENSORS_OTHER, 4}, {"I64", SAFETENSORS_OTHER, 8},     {"U64", SAFETENSORS_OTHER, 8}};

static Status read_at(const SafetensorsFile *file, void *to, size_t bytes, int64_t offset, Error *error)
{
    char *at = to;
    while (bytes > 0) {
        ssize_t n = pread(file->fd, at, bytes, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return status_fail(error, STATUS_INPUT, "%s: cannot read: %s", file->path, strerror(errno));
        if (n == 0) return status_fail(error, STATUS_INPUT, "%s: the file ends early", file->path);
        at += n;
        offset += n;
        bytes -= (size_t)n;
    }
    return STATUS_OK;
}

void safetensors_shape_text(char *text, size_t size, int ndim, const int64_t *shape)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (int d = 0; d < ndim && used < size; d++)
        used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, d ? ", " : "", shape[d]);
    if (used < size) snprintf(text + used, size - used, "]");
}

/* --- one entry of the header --- */

static bool whole_number(const cJSON *item, int64_t *value)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0.0) || item->valuedouble > EXACT_MAX) return false;
    *value = (int64_t)item->valuedouble;
    return (double)*value == item->valuedouble;
}

static Status parse_type(const SafetensorsFile *file, SafetensorsTensor *tensor, const cJSON *item,
                         Error *error)
{
    for (size_t i = 0; cJSON_IsString(item) && i < sizeof TYPES / sizeof *TYPES; i++) {
        if (strcmp(item->valuestring, TYPES[i].name) != 0) continue;
        tensor->type = TYPES[i].type;
        tensor->item = TYPES[i].item;
        return STATUS_OK;
    }
    return status_fail(error, STATUS_INPUT, "%s: %.200s: dtype is %.40s, which is not known", file->path,
                       tensor->name, cJSON_IsString(item) ? item->valuestring : "no text");
}

static Status parse_shape(const SafetensorsFile *file, SafetensorsTensor *tensor, const cJSON *item,
                          Error *error)
{
    if (!cJSON_IsArray(item))
        return status_fail(error, STATUS_INPUT, "%s: %.200s: shape is no list", file->path, tensor->name);
    const cJSON *size;
    tensor->count = 1;
    cJSON_ArrayForEach(size, item)
    {
        int64_t value;
        if (tensor->ndim == SAFETENSORS_MAX_DIMS)
            return status_fail(error, STATUS_INPUT, "%s: %.200s: shape has more than %d dimensions",
                               file->path, tensor->name, SAFETENSORS_MAX_DIMS);
        if (!whole_number(size, &value))
            return status_fail(error, STATUS_INPUT, "%s: %.200s: shape holds no whole number", file->path,
                               tensor->name);
        tensor->shape[tensor->ndim++] = value;
        if (__builtin_mul_overflow(tensor->count, value, &tensor->count))
            return status_fail(error, STATUS_INPUT, "%s: %.200s: shape is too large", file->path,
                               tensor->name);
    }
    if (__builtin_mul_overflow(tensor->count, (int64_t)tensor->item, &tensor->bytes))
        return status_fail(error, STATUS_INPUT, "%s: %.200s: shape is too large", file->path, tensor->name);
    return STATUS_OK;
}

/* data_offsets, against the shape and the `size` bytes behind the header. */
static Status parse_offsets(const SafetensorsFile *file, SafetensorsTensor *tensor, const cJSON *item,
                            int64_t size, Error *error)
{
    int64_t begin, end;
    if (!cJSON_IsArray(item) || cJSON_GetArraySize(item) != 2 || !whole_number(item->child, &begin) ||
        !whole_number(item->child->next, &end))
        return status_fail(error, STATUS_INPUT, "%s: %.200s: data_offsets is not two whole numbers",
                           file->path, tensor->name);
    if (begin > end || end > size)
        return status_fail(error, STATUS_INPUT,
                           "%s: %.200s: data_offsets [%" PRId64 ", %" PRId64
                           "] are outside of the file's %" PRId64 " bytes of tensors",
                           file->path, tensor->name, begin, end, size);
    if (end - begin != tensor->bytes)
        return status_fail(error, STATUS_INPUT,
                           "%s: %.200s: data_offsets span %" PRId64 " bytes, its shape and type %" PRId64,
                           file->path, tensor->name, end - begin, tensor->bytes);
    if (begin % (int64_t)tensor->item != 0)
        return status_fail(error, STATUS_INPUT,
                           "%s: %.200s: begins at byte %" PRId64
                           ", which is not aligned to its elements of %zu bytes",
                           file->path, tensor->name, begin, tensor->item);
    tensor->begin = begin;
    return STATUS_OK;
}

static Status parse_tensor(const SafetensorsFile *file, SafetensorsTensor *tensor, const cJSON *entry,
                           int64_t size, Error *error)
{
    tensor->name = memory_strdup(entry->string);
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    if (!cJSON_IsObject(entry) || !type || !shape || !offsets || cJSON_GetArraySize(entry) != 3)
        return status_fail(error, STATUS_INPUT,
                           "%s: %.200s: expected one each of dtype, shape and data_offsets", file->path,
                           tensor->name);
    TRY(parse_type(file, tensor, type, error));
    TRY(parse_shape(file, tensor, shape, error));
    return parse_offsets(file, tensor, offsets, size, error);
}

/* --- the header --- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const SafetensorsTensor *)a)->name, ((const SafetensorsTensor *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const SafetensorsTensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Every byte behind the header belongs to one tensor. Leaves them in the order of their places. */
static Status check_places(SafetensorsFile *file, int64_t size, Error *error)
{
    int64_t end = 0;
    if (file->count) qsort(file->tensors, (size_t)file->count, sizeof *file->tensors, by_place);
    for (int64_t i = 0; i < file->count; i++) {
        const SafetensorsTensor *tensor = &file->tensors[i];
        if (tensor->begin < end)
            return status_fail(error, STATUS_INPUT, "%s: %.200s: overlaps %.200s", file->path, tensor->name,
                               file->tensors[i - 1].name);
        if (tensor->begin > end)
            return status_fail(error, STATUS_INPUT,
                               "%s: %.200s: %" PRId64 " bytes before it belong to no tensor", file->path,
                               tensor->name, tensor->begin - end);
        end = tensor->begin + tensor->bytes;
    }
    if (end != size)
        return status_fail(error, STATUS_INPUT, "%s: %" PRId64 " bytes at its end belong to no tensor",
                           file->path, size - end);
    return STATUS_OK;
}

Status safetensors_sort(SafetensorsFile *file, Error *error)
{
    if (file->count) qsort(file->tensors, (size_t)file->count, sizeof *file->tensors, by_name);
    for (int64_t i = 1; i < file->count; i++)
        if (strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0)
            return status_fail(error, STATUS_INPUT, "%s: %.200s: is there twice", file->path,
                               file->tensors[i].name);
    return STATUS_OK;
}

static Status parse_entries(SafetensorsFile *file, const cJSON *root, int64_t size, Error *error)
{
    if (!cJSON_IsObject(root))
        return status_fail(error, STATUS_INPUT, "%s: the header is not a JSON object", file->path);
    file->tensors = memory_alloc_array((size_t)cJSON_GetArraySize(root) + 1, sizeof *file->tensors);
    const cJSON *entry;
    bool described = false;
    cJSON_ArrayForEach(entry, root)
    {
        if (strcmp(entry->string, "__metadata__") != 0) {
            TRY(parse_tensor(file, &file->tensors[file->count++], entry, size, error));
            continue;
        }
        if (described || !cJSON_IsObject(entry))
            return status_fail(error, STATUS_INPUT, "%s: __metadata__ is there twice, or no object",
                               file->path);
        described = true;
    }
    TRY(check_places(file, size, error));
    return safetensors_sort(file, error);
}

bool safetensors_has_nul(const char *text, size_t length)
{
    return memchr(text, '\0', length) || memmem(text, length, "\\u0000", strlen("\\u0000"));
}

static Status parse_header(SafetensorsFile *file, const char *text, size_t length, int64_t size, Error *error)
{
    const char *end = text;
    cJSON *root = NULL;
    if (text[0] == '{' && !safetensors_has_nul(text, length))
        root = cJSON_ParseWithLengthOpts(text, length, &end, 0);
    while (root && end < text + length && *end == ' ') /* padding */
        end++;
    Status status = STATUS_OK;
    if (!root || end != text + length)
        status = status_fail(error, STATUS_INPUT, "%s: not safetensors: the header is not JSON", file->path);
    else
        status = parse_entries(file, root, size, error);
    cJSON_Delete(root);
    return status;
}

/* Bytes of the header, which lies in the file. */
static Status header_length(const SafetensorsFile *file, size_t *length, int64_t *size, Error *error)
{
    struct stat facts;
    uint64_t said;
    if (fstat(file->fd, &facts) != 0)
        return status_fail(error, STATUS_INPUT, "%s: %s", file->path, strerror(errno));
    if (!S_ISREG(facts.st_mode) || facts.st_size < LENGTH_BYTES + 2)
        return status_fail(error, STATUS_INPUT, "%s: not safetensors: no file of at least %d bytes",
                           file->path, LENGTH_BYTES + 2);
    TRY(read_at(file, &said, sizeof said, 0, error));
    if (said < 2 || said > (uint64_t)facts.st_size - LENGTH_BYTES)
        return status_fail(error, STATUS_INPUT,
                           "%s: not safetensors: a header of %" PRIu64 " bytes in a file of %lld", file->path,
                           said, (long long)facts.st_size);
    if (said > HEADER_MAX)
        return status_fail(error, STATUS_INPUT, "%s: the header is %" PRIu64 " bytes, %d at most", file->path,
                           said, HEADER_MAX);
    *length = (size_t)said;
    *size = (int64_t)facts.st_size - LENGTH_BYTES - (int64_t)said;
    return STATUS_OK;
}

static Status read_header(SafetensorsFile *file, Error *error)
{
    size_t length = 0;
    int64_t size = 0;
    TRY(header_length(file, &length, &size, error));
    file->data = LENGTH_BYTES + (int64_t)length;
    char *text = memory_alloc(length + 1);
    Status status = read_at(file, text, length, LENGTH_BYTES, error);
    if (status == STATUS_OK) status = parse_header(file, text, length, size, error);
    memory_free(text);
    return status;
}

Status safetensors_open(SafetensorsFile *file, const char *path, Error *error)
{
    static const char INDEX[] = ".index.json";
    size_t size = strlen(path), tail = sizeof INDEX - 1;
    if (size > tail && strcmp(path + size - tail, INDEX) == 0)
        return safetensors_index_open(file, path, error);
    *file = (SafetensorsFile){.path = memory_strdup(path), .fd = open(path, O_RDONLY | O_CLOEXEC)};
    Status status = file->fd < 0
                        ? status_fail(error, STATUS_INPUT, "%s: cannot open: %s", path, strerror(errno))
                        : read_header(file, error);
    if (status != STATUS_OK) safetensors_close(file);
    return status;
}

void safetensors_close(SafetensorsFile *file)
{
    if (file->fd >= 0 && file->path) close(file->fd);
    for (int64_t i = 0; i < file->count; i++)
        memory_free(file->tensors[i].name);
    for (int p = 0; p < file->part_count; p++)
        safetensors_close(&file->parts[p]);
    memory_free(file->parts);
    memory_free(file->tensors);
    memory_free(file->path);
    *file = (SafetensorsFile){.fd = -1};
}

const SafetensorsTensor *safetensors_find(const SafetensorsFile *file, const char *name)
{
    SafetensorsTensor key = {.name = (char *)(uintptr_t)name};
    if (file->count == 0) return NULL;
    return bsearch(&key, file->tensors, (size_t)file->count, sizeof key, by_name);
}

/* --- values --- */

static float value_at(const void *block, SafetensorsType type, size_t i)
{
    if (type == SAFETENSORS_F32) return ((const float *)block)[i];
    if (type == SAFETENSORS_F64) {
        double value = ((const double *)block)[i];
        return fabs(value) <= 3.4028234663852886e38 ? (float)value : INFINITY;
    }
    uint16_t bits = ((const uint16_t *)block)[i];
    return type == SAFETENSORS_F16 ? dtype_f32_from_f16(bits) : dtype_f32_from_bf16(bits);
}

Status safetensors_read(const SafetensorsFile *file, const SafetensorsTensor *tensor, int64_t start,
                        int64_t count, float *values, Error *error)
{
    if (tensor->type == SAFETENSORS_OTHER)
        return status_fail(error, STATUS_INPUT, "%s: %.200s: expected F32, F16, BF16 or F64", file->path,
                           tensor->name);
    if (file->parts) file = &file->parts[tensor->part];
    int64_t offset = file->data + tensor->begin + start * (int64_t)tensor->item;
    int64_t step = BLOCK_BYTES / (int64_t)tensor->item;
    void *block = memory_alloc(BLOCK_BYTES);
    Status status = STATUS_OK;
    for (int64_t done = 0; done < count && status == STATUS_OK; done += step) {
        int64_t part = count - done < step ? count - done : step;
        status =
            read_at(file, block, (size_t)part * tensor->item, offset + done * (int64_t)tensor->item, error);
        for (int64_t i = 0; i < part && status == STATUS_OK; i++) {
            values[done + i] = value_at(block, tensor->type, (size_t)i);
            if (!isfinite(values[done + i]))
                status =
                    status_fail(error, STATUS_INPUT, "%s: %.200s: element %" PRId64 " is NaN or infinite",
                                file->path, tensor->name, start + done + i);
        }
    }
    memory_free(block);
    return status;
}
