/* data_buffer.c - growable bytes. */
#include "data/data_buffer.h"

#include "base/memory.h"

#include <string.h>

void data_buffer_resize(DataBuffer *buffer, size_t size)
{
    if (size > buffer->capacity) {
        size_t capacity = size + size / 2;
        buffer->bytes = memory_grow(buffer->bytes, buffer->size, capacity);
        buffer->capacity = capacity;
    }
    buffer->size = size;
}

void data_buffer_append(DataBuffer *buffer, const void *bytes, size_t size)
{
    if (!size) return;
    size_t old = buffer->size;
    data_buffer_resize(buffer, old + size);
    memcpy(buffer->bytes + old, bytes, size);
}

void data_buffer_destroy(DataBuffer *buffer)
{
    memory_free(buffer->bytes);
    *buffer = (DataBuffer){0};
}
