/* test_cuda_device.c - device/cuda: memory, copies, the order of work, staged arenas, events. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>
#include <string.h>

static Device *open_gpu(void)
{
    Error error = {0};
    Device *device = NULL;
    cr_assert_eq(device_open(&device, DEVICE_CUDA, 0, &error), STATUS_OK, "%s", error.text);
    return device;
}

static void fill(uint8_t *bytes, size_t n, unsigned seed)
{
    Rng rng = rng_at(seed, RNG_TEST, 0, 0);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)rng_u32(&rng);
}

Test(cuda_device, opens_what_was_asked_for)
{
    TWIN_REQUIRE();
    Error error = {0};
    Device *device = NULL;
    cr_assert_eq(device_open(&device, DEVICE_AUTO, 0, &error), STATUS_OK);
    cr_expect_eq(device_kind(device), DEVICE_CUDA);
    cr_expect(strstr(device_name(device), "(GPU 0)"), "%s", device_name(device));
    device_close(device);
    cr_assert_eq(device_open(&device, DEVICE_CUDA, 7 * device_gpu_count(), &error), STATUS_OK);
    cr_expect(strstr(device_name(device), "(GPU 0)"), "ranks go round the GPUs: %s", device_name(device));
    device_close(device);
}

Test(cuda_device, memory_is_zeroed_aligned_and_counted)
{
    TWIN_REQUIRE();
    Device *device = open_gpu();
    size_t before = device_memory_used(device);
    const size_t n = 12345;
    uint8_t *there = device_alloc(device, n), *nothing = device_alloc(device, 0), here[12345];
    cr_expect(nothing != NULL);
    cr_expect_eq((uintptr_t)there % 256, 0);
    cr_expect_eq(device_memory_used(device), before + n);
    memset(here, 0xff, n);
    device_download(device, here, there, n);
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(here[i], 0);
    device_free(device, there);
    device_free(device, nothing);
    cr_expect_eq(device_memory_used(device), before);
    cr_expect(device_memory_peak(device) >= before + n);
    device_close(device);
}

/* Up, across, partly zeroed, down: through pinned memory or through any. */
static void go_round(Device *device, uint8_t *from, uint8_t *to, size_t n)
{
    uint8_t *a = device_alloc(device, n), *b = device_alloc(device, n);
    device_upload(device, a, from, n);
    device_copy(device, b, a, n);
    device_zero(device, b + n / 2, 100);
    device_download(device, to, b, n);
    device_finish(device);
    cr_expect_eq(memcmp(from, to, n / 2), 0);
    for (size_t i = n / 2; i < n / 2 + 100; i++)
        cr_assert_eq(to[i], 0);
    cr_expect_eq(memcmp(from + n / 2 + 100, to + n / 2 + 100, n - n / 2 - 100), 0);
    device_free(device, a);
    device_free(device, b);
}

Test(cuda_device, copies_arrive_in_order)
{
    TWIN_REQUIRE();
    enum { N = 70001 };
    static uint8_t from[N], to[N];
    Device *device = open_gpu();
    uint8_t *pinned_from = device_alloc_host(device, N), *pinned_to = device_alloc_host(device, N);
    for (size_t i = 0; i < N; i++)
        cr_assert_eq(pinned_from[i] | pinned_to[i], 0, "pinned memory is zeroed");
    fill(from, N, 1);
    fill(pinned_from, N, 2);
    go_round(device, from, to, N);
    go_round(device, pinned_from, pinned_to, N);
    go_round(device, pinned_from, to, N);
    device_upload(device, NULL, NULL, 0);
    device_free_host(device, pinned_from);
    device_free_host(device, pinned_to);
    device_close(device);
}

/* Pageable memory may be written again when device_upload returns. */
Test(cuda_device, uploads_have_left_pageable_memory)
{
    TWIN_REQUIRE();
    Device *device = open_gpu();
    uint8_t here[1000], back[1000], *there = device_alloc(device, sizeof here);
    fill(here, sizeof here, 3);
    device_upload(device, there, here, sizeof here);
    uint8_t first = here[0];
    memset(here, 0, sizeof here);
    device_download(device, back, there, sizeof back);
    cr_expect_eq(back[0], first);
    device_free(device, there);
    device_close(device);
}

Test(cuda_device, an_arena_stages_what_the_host_writes)
{
    TWIN_REQUIRE();
    Device *device = open_gpu();
    Arena plan = arena_measuring();
    int32_t *host = NULL;
    float *scales = NULL;
    arena_alloc(&plan, 5000);
    tensor_stage_1d(&plan, DTYPE_I32, 100, &host);
    tensor_stage_1d(&plan, DTYPE_F32, 50, &scales);
    Arena arena = device_arena_create(device, &plan);
    for (int round = 0; round < 3; round++) {
        device_wait_staged(device);
        arena_reset(&arena, ARENA_START);
        void *plain = arena_alloc(&arena, 5000);
        Tensor rows = tensor_stage_1d(&arena, DTYPE_I32, 100, &host);
        Tensor weights = tensor_stage_1d(&arena, DTYPE_F32, 50, &scales);
        cr_assert(plain && host && scales && (void *)host != rows.data);
        for (int i = 0; i < 100; i++)
            host[i] = 7 * i + round;
        for (int i = 0; i < 50; i++)
            scales[i] = 0.5f * (float)i;
        device_upload_staged(device, &arena, ARENA_START);
        int32_t back[100];
        float back_scales[50];
        device_download(device, back, rows.data, sizeof back);
        device_download(device, back_scales, weights.data, sizeof back_scales);
        cr_expect_eq(memcmp(back, host, sizeof back), 0);
        cr_expect_eq(memcmp(back_scales, scales, sizeof back_scales), 0);
    }
    device_arena_destroy(device, &arena);
    device_close(device);
}

Test(cuda_device, events_stand_in_the_order_of_work)
{
    TWIN_REQUIRE();
    enum { N = 1 << 20 };
    Device *device = open_gpu();
    DeviceEvent *before = device_event_create(device), *after = device_event_create(device);
    uint8_t *there = device_alloc(device, N), *pinned = device_alloc_host(device, N),
            *back = device_alloc_host(device, N);
    device_event_wait(before); /* never recorded: at once */
    fill(pinned, N, 4);
    device_event_record(before);
    device_upload(device, there, pinned, N);
    device_download(device, back, there, N);
    device_event_record(after);
    device_event_wait(after);
    cr_expect_eq(memcmp(pinned, back, N), 0);
    double seconds = device_event_seconds(before, after);
    cr_expect(seconds > 0.0 && seconds < 10.0, "%g s", seconds);
    device_event_destroy(before);
    device_event_destroy(after);
    device_free(device, there);
    device_free_host(device, pinned);
    device_free_host(device, back);
    device_close(device);
}
