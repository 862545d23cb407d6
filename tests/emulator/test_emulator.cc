/* test_emulator.cc - does the emulator do what a GPU does, and catch what it claims to? */
#include <criterion/criterion.h>

#include "ops/cuda/kernel_launch.cuh"
#include "ops/cuda/tensor_core.cuh"
#include "ops/cuda/warpgroup_core.cuh"

#include <random>
#include <signal.h>
#include <vector>

/* n elements of device memory with these values. */
template <typename T> static T *upload(const std::vector<T> &values)
{
    T *memory = NULL;
    CUDA_CHECK(cudaMalloc(&memory, values.size() * sizeof(T)));
    CUDA_CHECK(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return memory;
}

template <typename T> static std::vector<T> download(const T *memory, size_t n)
{
    std::vector<T> values(n);
    CUDA_CHECK(cudaMemcpy(values.data(), memory, n * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
}

static std::vector<float> random_floats(size_t n, unsigned seed)
{
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(n);
    for (float &value : values)
        value = normal(generator);
    return values;
}

static bool any_nan(const std::vector<float> &values)
{
    for (float value : values)
        if (value != value) return true;
    return false;
}

/* --- what a GPU does --------------------------------------------------------------------------------- */

template <int THREADS> __global__ void block_sums(float *out, const float *in)
{
    __shared__ float partial[THREADS];
    int t = threadIdx.x;
    partial[t] = in[blockIdx.x * THREADS + t];
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (t < half) partial[t] += partial[t + half];
        __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = partial[0];
}

Test(emulator, sums_over_blocks_with_barriers)
{
    const int blocks = 300, threads = 256;
    std::vector<float> in(blocks * threads);
    for (size_t i = 0; i < in.size(); i++)
        in[i] = (float)(i % 97);
    float *from = upload(in), *to = upload(std::vector<float>(blocks, -1.0f));
    KERNEL_LAUNCH(block_sums<threads>, blocks, threads, 0, 0, to, from);
    std::vector<float> out = download(to, blocks);
    for (int b = 0; b < blocks; b++) {
        float want = 0.0f;
        for (int i = 0; i < threads; i++)
            want += in[(size_t)(b * threads + i)];
        cr_assert_eq(out[(size_t)b], want, "block %d: %g in place of %g", b, (double)out[(size_t)b],
                     (double)want);
    }
}

__global__ void transpose(float *out, const float *in, int rows, int columns)
{
    KERNEL_SHARED(float, tile); /* [32][33] */
    int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32;
    for (int i = threadIdx.y; i < 32; i += blockDim.y)
        if (x < columns && y + i < rows) tile[i * 33 + threadIdx.x] = in[(y + i) * columns + x];
    __syncthreads();
    int row = blockIdx.y * 32 + threadIdx.x;
    for (int i = threadIdx.y; i < 32; i += blockDim.y) {
        int column = blockIdx.x * 32 + i;
        if (column < columns && row < rows) out[column * rows + row] = tile[threadIdx.x * 33 + i];
    }
}

Test(emulator, transposes_through_shared_memory)
{
    const int rows = 71, columns = 45;
    std::vector<float> in = random_floats((size_t)(rows * columns), 1);
    float *from = upload(in), *to = upload(std::vector<float>(in.size()));
    KERNEL_LAUNCH(transpose, dim3(2, 3), dim3(32, 8), 32 * 33 * sizeof(float), 0, to, from, rows, columns);
    std::vector<float> out = download(to, in.size());
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            cr_assert_eq(out[(size_t)(j * rows + i)], in[(size_t)(i * columns + j)]);
}

__global__ void shuffles(int *out)
{
    int lane = (int)threadIdx.x;
    out[lane] = __shfl_xor_sync(0xffffffffu, lane, 5);
    out[32 + lane] = __shfl_down_sync(0xffffffffu, lane, 3);
    out[64 + lane] = __shfl_up_sync(0xffffffffu, lane, 3, 8);
    out[96 + lane] = __shfl_sync(0xffffffffu, lane, 2, 16);
    out[128 + lane] = (int)__ballot_sync(0xffffffffu, lane % 3 == 0);
    if (lane < 16) /* half a warp alone */
        out[160 + lane] = __shfl_xor_sync(0xffffu, lane, 1) + 100 * __any_sync(0xffffu, lane == 9);
    else
        out[160 + lane] = __shfl_xor_sync(0xffff0000u, lane, 2);
}

Test(emulator, shuffles_and_votes)
{
    int *memory = upload(std::vector<int>(192));
    KERNEL_LAUNCH(shuffles, 1, 32, 0, 0, memory);
    std::vector<int> out = download(memory, 192);
    unsigned thirds = 0;
    for (int lane = 0; lane < 32; lane++)
        thirds |= lane % 3 == 0 ? 1u << lane : 0;
    for (int lane = 0; lane < 32; lane++) {
        const int *got = out.data() + lane;
        cr_expect_eq(got[0], lane ^ 5);
        cr_expect_eq(got[32], lane < 29 ? lane + 3 : lane);
        cr_expect_eq(got[64], lane % 8 < 3 ? lane : lane - 3);
        cr_expect_eq(got[96], lane / 16 * 16 + 2);
        cr_expect_eq((unsigned)got[128], thirds);
        cr_expect_eq(got[160], lane < 16 ? (lane ^ 1) + 100 : lane ^ 2);
    }
}

/* c[16, 8] = a[16, 16] . b[16, 8] with fragments as the PTX ISA lists them, element by element. */
template <typename T> __global__ void multiply_fragments(float *c, const T *a, const T *b)
{
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    auto pair = [](T low, T high) { return (uint32_t)low.bits | (uint32_t)high.bits << 16; };
    uint32_t fa[4], fb[2];
    for (int i = 0; i < 4; i++) {
        const T *from = a + (g + 8 * (i % 2)) * 16 + 2 * t + 8 * (i / 2);
        fa[i] = pair(from[0], from[1]);
    }
    for (int i = 0; i < 2; i++)
        fb[i] = pair(b[(2 * t + 8 * i) * 8 + g], b[(2 * t + 8 * i + 1) * 8 + g]);
    float fc[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    mma_m16n8k16(fc, fa, fb, T());
    for (int i = 0; i < 4; i++)
        c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = fc[i];
}

/* The same with fragments that ldmatrix fetches: a as it lies, b[16, 8] row-major through the transposing
 * form. */
template <typename T> __global__ void multiply_loaded(float *c, const T *a, const T *b)
{
    __shared__ __align__(16) T tile_a[16 * 16];
    __shared__ __align__(16) T tile_b[16 * 16]; /* columns 8.. are another matrix: twice b */
    int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) {
        tile_a[i] = a[i];
        tile_b[i] = i % 16 < 8 ? b[i / 16 * 8 + i % 16] : T(2.0f * (float)b[i / 16 * 8 + i % 8]);
    }
    __syncwarp();
    uint32_t fa[4], fb[4];
    ldmatrix_x4(fa, tile_a + (lane % 16) * 16 + 8 * (lane / 16));
    ldmatrix_x4_trans(fb, tile_b + (lane % 16) * 16 + 8 * (lane / 16));
    float first[4] = {1.0f, 1.0f, 1.0f, 1.0f}, second[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma_m16n8k16(first, fa, fb, T());
    mma_m16n8k16(second, fa, fb + 2, T());
    for (int i = 0; i < 4; i++) {
        int at = (lane / 4 + 8 * (i / 2)) * 8 + 2 * (lane % 4) + i % 2;
        c[at] = first[i];
        c[128 + at] = second[i];
    }
}

template <typename T> static void check_product(unsigned seed)
{
    std::vector<float> numbers = random_floats(16 * 24, seed);
    std::vector<T> a(numbers.begin(), numbers.begin() + 256), b(numbers.begin() + 256, numbers.end());
    T *da = upload(a), *db = upload(b);
    float *dc = upload(std::vector<float>(128)), *dd = upload(std::vector<float>(256));
    KERNEL_LAUNCH(multiply_fragments<T>, 1, 32, 0, 0, dc, da, db);
    KERNEL_LAUNCH(multiply_loaded<T>, 1, 32, 0, 0, dd, da, db);
    std::vector<float> c = download(dc, 128), d = download(dd, 256);
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 8; j++) {
            double want = 1.0;
            for (int k = 0; k < 16; k++)
                want += (double)(float)a[(size_t)(i * 16 + k)] * (double)(float)b[(size_t)(k * 8 + j)];
            size_t at = (size_t)(i * 8 + j);
            cr_assert_float_eq(c[at], want, 1e-5, "fragments at %d, %d: %g, not %g", i, j, (double)c[at],
                               want);
            cr_assert_float_eq(d[at], want, 1e-5, "ldmatrix at %d, %d: %g, not %g", i, j, (double)d[at],
                               want);
            cr_assert_float_eq(d[128 + at], 2.0 * (want - 1.0), 3e-5);
        }
    }
}

Test(emulator, matrix_products_of_bf16)
{
    check_product<__nv_bfloat16>(2);
}

Test(emulator, matrix_products_of_fp16)
{
    check_product<__half>(3);
}

/* c[64, N] = 1 + a[64, 16] . b[16, N] by a warpgroup. ACROSS 0: b comes as N rows of 16, else as 16 rows of
 * N. The tile is written as the PTX ISA's tables of swizzle atoms and strides say: rows of SPAN elements, a
 * block of SPAN columns after the other, eight rows to an atom, 16-byte chunks exchanged within a row. */
template <typename T, int N, int SPAN, int ACROSS>
__global__ void multiply_warpgroup(float *c, const T *a, const T *b)
{
    KERNEL_SHARED(T, memory);
    const int ROWS = ACROSS ? 24 : N + 8, COLUMNS = ACROSS ? N : 16,
              FIRST = 8; /* of the rows before the tile */
    T *tile = memory + (-(uintptr_t)memory & (WARPGROUP_ALIGNMENT - 1)) / sizeof(T);
    for (int i = threadIdx.x; i < (ROWS - FIRST) * COLUMNS / 8; i += 128) {
        int row = i / (COLUMNS / 8) + FIRST, chunk = i % (COLUMNS / 8);
        int atom = SPAN == 64 ? row % 8 : row / 2 % 4;
        T *to = tile + (chunk * 8 / SPAN * ROWS + row) * SPAN + (chunk % (SPAN / 8) ^ atom) * 8;
        cp_async_16(to, b + (row - FIRST) * COLUMNS + chunk * 8, true);
    }
    cp_async_commit();
    cp_async_wait<0>();
    warpgroup_fence_shared();
    __syncthreads();
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    uint32_t left[4];
    float sums[N / 8][4];
    for (int i = 0; i < 4; i++) {
        const T *from = a + (16 * warp + g + 8 * (i % 2)) * 16 + 2 * t + 8 * (i / 2);
        left[i] = (uint32_t)from[0].bits | (uint32_t)from[1].bits << 16;
    }
    for (int i = 0; i < N / 2; i++)
        sums[i / 4][i % 4] = 1.0f;
    warpgroup_fence();
    warpgroup_mma<T, N, ACROSS>(
        sums, left, warpgroup_descriptor(warpgroup_place(tile + FIRST * SPAN), SPAN, ROWS * SPAN * 2), true);
    warpgroup_commit();
    warpgroup_wait();
    for (int i = 0; i < N / 2; i++)
        c[(16 * warp + g + 8 * (i % 4 / 2)) * N + i / 4 * 8 + 2 * t + i % 2] = sums[i / 4][i % 4];
}

template <typename T, int N, int SPAN, int ACROSS> static void check_warpgroup(unsigned seed)
{
    std::vector<float> numbers = random_floats(64 * 16 + 16 * N, seed);
    std::vector<T> a(numbers.begin(), numbers.begin() + 1024), b(numbers.begin() + 1024, numbers.end());
    float *dc = upload(std::vector<float>(64 * N));
    KERNEL_LAUNCH((multiply_warpgroup<T, N, SPAN, ACROSS>), 1, 128, 24 << 10, 0, dc, upload(a), upload(b));
    std::vector<float> c = download(dc, 64 * N);
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < N; j++) {
            double want = 1.0;
            for (int k = 0; k < 16; k++)
                want += (double)(float)a[(size_t)(i * 16 + k)] *
                        (double)(float)b[(size_t)(ACROSS ? k * N + j : j * 16 + k)];
            cr_assert_float_eq(c[(size_t)(i * N + j)], want, 1e-5,
                               "%d columns, span %d, across %d: at %d, %d", N, SPAN, ACROSS, i, j);
        }
}

Test(emulator, products_of_a_warpgroup)
{
    check_warpgroup<__nv_bfloat16, 16, 64, 0>(11);
    check_warpgroup<__half, 64, 64, 0>(12);
    check_warpgroup<__half, 32, 32, 0>(13);
    check_warpgroup<__nv_bfloat16, 64, 64, 1>(14);
    check_warpgroup<__half, 128, 64, 1>(15);
    check_warpgroup<__nv_bfloat16, 96, 32, 1>(16);
    check_warpgroup<__half, 32, 32, 1>(17);
}

Test(emulator, half_precision_is_rounded_to_nearest_even)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float value = __half2float(__ushort_as_half((unsigned short)bits));
        if (value != value) continue;
        cr_assert_eq(__half_as_ushort(__float2half_rn(value)), bits, "bits %x", bits);
    }
    cr_expect_eq((float)__half(65519.0f), 65504.0f);
    cr_expect(isinf((float)__half(65520.0f)));
    cr_expect_eq((float)__half(2049.0f), 2048.0f);
    cr_expect_eq((float)__half(2051.0f), 2052.0f);
    cr_expect_eq((float)__half(0x1.8p-25f), 0x1p-24f);
    cr_expect_eq((float)__half(0x1p-25f), 0.0f);
    cr_expect_eq((float)__nv_bfloat16(1.0f + 0x1p-8f), 1.0f);
    cr_expect_eq((float)__nv_bfloat16(1.0f + 0x1.8p-7f), 1.0f + 0x1p-6f);
}

/* --- what it catches: NaN ---------------------------------------------------------------------------- */

template <bool WAIT> __global__ void copy_through_shared(float *out, const float *in, int n)
{
    KERNEL_SHARED(float, tile);
    int first = 4 * (int)threadIdx.x;
    cp_async_16(tile + first, in + first, first < n);
    cp_async_commit();
    if (WAIT) cp_async_wait<0>();
    __syncthreads();
    for (int i = 0; i < 4; i++)
        out[first + i] = tile[first + i];
}

Test(emulator, asynchronous_copies_need_their_wait)
{
    std::vector<float> in = random_floats(128, 4);
    float *from = upload(in), *to = upload(std::vector<float>(128));
    KERNEL_LAUNCH(copy_through_shared<true>, 1, 32, 512, 0, to, from, 64);
    std::vector<float> out = download(to, 128);
    for (size_t i = 0; i < 128; i++)
        cr_expect_eq(out[i], i < 64 ? in[i] : 0.0f);
    KERNEL_LAUNCH(copy_through_shared<false>, 1, 32, 512, 0, to, from, 128);
    cr_expect(any_nan(download(to, 128)));
}

template <bool BARRIER> __global__ void neighbours(float *out)
{
    __shared__ float value[64];
    value[threadIdx.x] = (float)threadIdx.x;
    if (BARRIER) __syncthreads();
    out[threadIdx.x] = value[(threadIdx.x + 1) % 64] + value[(threadIdx.x + 63) % 64];
}

Test(emulator, a_missing_barrier_gives_nan)
{
    float *to = upload(std::vector<float>(64));
    KERNEL_LAUNCH(neighbours<true>, 1, 64, 0, 0, to);
    cr_expect_not(any_nan(download(to, 64)));
    KERNEL_LAUNCH(neighbours<false>, 1, 64, 0, 0, to);
    cr_expect(any_nan(download(to, 64)));
}

/* --- what it catches: the end ------------------------------------------------------------------------ */

__global__ void returns_early(float *out)
{
    if (threadIdx.x == 5) return;
    __syncthreads();
    out[threadIdx.x] = 1.0f;
}

Test(emulator, a_thread_that_leaves_a_barrier_alone, .signal = SIGABRT)
{
    KERNEL_LAUNCH(returns_early, 1, 64, 0, 0, upload(std::vector<float>(64)));
    cudaDeviceSynchronize();
}

__global__ void barrier_in_a_branch(float *out)
{
    if (threadIdx.x < 32) {
        __syncthreads();
        out[0] = 1.0f;
    } else {
        __syncthreads();
        out[1] = 1.0f;
    }
}

Test(emulator, barriers_at_different_places, .signal = SIGABRT)
{
    KERNEL_LAUNCH(barrier_in_a_branch, 1, 64, 0, 0, upload(std::vector<float>(64)));
    cudaDeviceSynchronize();
}

__global__ void lanes_apart(int *out)
{
    int lane = (int)threadIdx.x;
    if (lane < 8) out[lane] = __shfl_xor_sync(0xffffffffu, lane, 1);
}

Test(emulator, lanes_that_do_not_come, .signal = SIGABRT)
{
    KERNEL_LAUNCH(lanes_apart, 1, 32, 0, 0, upload(std::vector<int>(32)));
    cudaDeviceSynchronize();
}

/* One product of zeros, and one mistake. */
enum Mistake { NO_FENCE, NO_WAIT, ONE_WARP_LESS, TOUCHED_RESULT, OFF_THE_PATTERN, NOT_FENCED_SHARED };

template <int MISTAKE> __global__ void wrong_product(float *out, const __half *in)
{
    KERNEL_SHARED(__half, memory);
    __half *tile = memory + (-(uintptr_t)memory & (WARPGROUP_ALIGNMENT - 1)) / sizeof(__half);
    for (int i = threadIdx.x; i < 256; i += 128)
        cp_async_16(tile + 8 * i, in, false);
    cp_async_commit();
    cp_async_wait<0>();
    if (MISTAKE != NOT_FENCED_SHARED) warpgroup_fence_shared();
    __syncthreads();
    uint32_t left[4] = {};
    float sums[2][4] = {};
    int row = MISTAKE == OFF_THE_PATTERN ? 3 : 8;
    if (MISTAKE == ONE_WARP_LESS && threadIdx.x >= 96) return;
    if (MISTAKE != NO_FENCE) warpgroup_fence();
    warpgroup_mma<__half, 16, 0>(sums, left, warpgroup_descriptor(warpgroup_place(tile + row * 64), 64, 0),
                                 true);
    warpgroup_commit();
    if (MISTAKE == TOUCHED_RESULT) sums[1][2] = 0.0f;
    if (MISTAKE != NO_WAIT) warpgroup_wait();
    out[threadIdx.x] = sums[0][0];
}

template <int MISTAKE> static void make_mistake()
{
    float *out = upload(std::vector<float>(128));
    KERNEL_LAUNCH(wrong_product<MISTAKE>, 1, 128, 6 << 10, 0, out, upload(std::vector<__half>(8)));
    cudaDeviceSynchronize();
}

Test(emulator, a_product_without_fence, .signal = SIGABRT)
{
    make_mistake<NO_FENCE>();
}

Test(emulator, a_product_that_nobody_waits_for, .signal = SIGABRT)
{
    make_mistake<NO_WAIT>();
}

Test(emulator, a_warp_that_leaves_its_warpgroup_alone, .signal = SIGABRT)
{
    make_mistake<ONE_WARP_LESS>();
}

Test(emulator, a_result_written_while_under_way, .signal = SIGABRT)
{
    make_mistake<TOUCHED_RESULT>();
}

Test(emulator, a_tile_off_the_swizzle_pattern, .signal = SIGABRT)
{
    make_mistake<OFF_THE_PATTERN>();
}

Test(emulator, a_tile_that_was_not_handed_to_matrix_instructions, .signal = SIGABRT)
{
    make_mistake<NOT_FENCED_SHARED>();
}

__global__ void write_at(float *out, int place)
{
    out[place] = 1.0f;
}

Test(emulator, a_write_behind_an_allocation, .signal = SIGABRT)
{
    KERNEL_LAUNCH(write_at, 1, 1, 0, 0, upload(std::vector<float>(10)), 10);
    cudaDeviceSynchronize();
}

__global__ void write_shared(int place)
{
    KERNEL_SHARED(float, tile);
    tile[place] = 1.0f;
}

Test(emulator, a_write_behind_shared_memory, .signal = SIGABRT)
{
    KERNEL_LAUNCH(write_shared, 1, 1, 40, 0, 10);
    cudaDeviceSynchronize();
}

Test(emulator, the_host_cannot_touch_device_memory, .signal = SIGSEGV)
{
    volatile float *memory = upload(std::vector<float>(10));
    memory[3] = 1.0f;
}

Test(emulator, kernels_take_no_host_memory, .signal = SIGABRT)
{
    float here[10];
    KERNEL_LAUNCH(write_at, 1, 1, 0, 0, here, 0);
}

/* --- streams ----------------------------------------------------------------------------------------- */

Test(emulator, work_is_done_when_it_was_waited_for)
{
    float *memory = upload(std::vector<float>(1)), *pinned = NULL;
    cudaEvent_t event;
    cudaStream_t stream;
    CUDA_CHECK(cudaMallocHost(&pinned, sizeof *pinned));
    CUDA_CHECK(cudaEventCreate(&event));
    CUDA_CHECK(cudaStreamCreate(&stream));
    KERNEL_LAUNCH(write_at, 1, 1, 0, stream, memory, 0);
    CUDA_CHECK(cudaMemcpyAsync(pinned, memory, sizeof *pinned, cudaMemcpyDeviceToHost, stream));
    CUDA_CHECK(cudaEventRecord(event, stream));
    cr_expect(*pinned != *pinned, "before the event has passed, the result is not there");
    CUDA_CHECK(cudaEventSynchronize(event));
    cr_expect_eq(*pinned, 1.0f);
}

/* The second stream runs as early as its events allow, the first as late as the host lets it. */
Test(emulator, streams_are_ordered_by_events_alone)
{
    float *memory = upload(std::vector<float>(4)), pinned[4];
    cudaEvent_t first_done, second_done;
    cudaStream_t first, second;
    CUDA_CHECK(cudaEventCreate(&first_done));
    CUDA_CHECK(cudaEventCreate(&second_done));
    CUDA_CHECK(cudaStreamCreate(&first));
    CUDA_CHECK(cudaStreamCreate(&second));
    CUDA_CHECK(cudaStreamWaitEvent(second, second_done)); /* never recorded: nothing to wait for */

    KERNEL_LAUNCH(write_at, 1, 1, 0, first, memory, 0);
    CUDA_CHECK(cudaEventRecord(first_done, first));
    CUDA_CHECK(cudaMemcpyAsync(memory + 1, memory, 4, cudaMemcpyDeviceToDevice, second)); /* too early */
    CUDA_CHECK(cudaStreamWaitEvent(second, first_done));
    CUDA_CHECK(cudaMemcpyAsync(memory + 2, memory, 4, cudaMemcpyDeviceToDevice, second));
    CUDA_CHECK(cudaEventRecord(second_done, second));
    CUDA_CHECK(cudaMemcpyAsync(memory + 3, memory + 2, 4, cudaMemcpyDeviceToDevice, first)); /* too early */
    CUDA_CHECK(cudaMemcpyAsync(pinned, memory, 16, cudaMemcpyDeviceToHost, first));
    cr_expect(pinned[0] == 1.0f && pinned[1] == 0.0f && pinned[2] == 0.0f && pinned[3] == 0.0f);
    cr_expect_eq(cudaEventQuery(second_done), cudaErrorNotReady);
    CUDA_CHECK(cudaStreamWaitEvent(first, second_done));
    CUDA_CHECK(cudaMemcpyAsync(pinned, memory, 16, cudaMemcpyDeviceToHost, first));
    cr_expect(pinned[0] == 1.0f && pinned[1] == 0.0f && pinned[2] == 1.0f && pinned[3] == 0.0f);
    CUDA_CHECK(cudaEventQuery(second_done));
}
