/* data_buffer.h - bytes that grow and are reused: one per reading thread. */
#ifndef DINOBATCH_DATA_DATA_BUFFER_H
#define DINOBATCH_DATA_DATA_BUFFER_H

#include <stddef.h>
#include <stdint.h>

/* Zero-initialised it is empty: `DataBuffer buffer = {0};` */
typedef struct {
    uint8_t *bytes; /* [size], owned */
    size_t size;
    size_t capacity;
} DataBuffer;

/* Makes size == `size`; the contents up to the smaller of both sizes stay. */
void data_buffer_resize(DataBuffer *buffer, size_t size);

/* Adds bytes[size] at the end. */
void data_buffer_append(DataBuffer *buffer, const void *bytes, size_t size);

void data_buffer_destroy(DataBuffer *buffer);

#endif
