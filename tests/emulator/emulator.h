/* emulator.h - runs CUDA kernels on the host, to prove them right where there is no GPU.
 *
 * This folder comes before src on the include path and shadows <cuda_runtime.h>, <cuda_bf16.h>,
 * <cuda_fp16.h> and, of ops/cuda, kernel_launch.cuh, tensor_core.cuh and warpgroup_core.cuh, so that
 * `g++ -x c++` compiles every .cu file unchanged.
 *
 * The blocks of a grid run one after another in a random order; each thread of a block is a fiber with a
 * stack of its own, and fibers take turns at collective operations only (barriers, shuffles, matrix
 * instructions). Threads start in a random order. What is caught, with kernel, block and thread:
 *   - a barrier or warp operation that not all threads reach, or that they reach at different places;
 *   - reads of shared memory that nobody wrote (it holds NaN when a block starts) or that a copy under way
 * will write (cp.async takes effect at its wait), so missing barriers and waits: by NaN in the result;
 *   - accesses of host code to device memory, of kernels beyond allocations (redzones) and shared memory;
 *   - host memory that is used before the stream was waited for: work given to a stream runs when somebody
 * waits;
 *   - work of one stream that relies on another one's without an event between them;
 *   - misaligned vectors and indices beyond arrays, by the compiler's sanitizers.
 * What is not: timing, registers, memory ordering between blocks, the rounding of the special function unit,
 * cuBLAS.
 *
 * EMULATOR_SEED=N changes the random orders; EMULATOR_EAGER=1 runs work at once (for a debugger);
 * EMULATOR_ARCHITECTURE=90 is what the device says of itself (80 otherwise): kernels of any run.
 */
#ifndef DINOBATCH_TESTS_EMULATOR_EMULATOR_H
#define DINOBATCH_TESTS_EMULATOR_EMULATOR_H

#include "vector_types.h"

#include <functional>
#include <stddef.h>
#include <stdint.h>
#include <tuple>
#include <type_traits>

/* The device: memory, and bytes of shared memory that a block gets unasked and at most. */
const size_t EMULATOR_DEVICE_BYTES = (size_t)8 << 30;
const int EMULATOR_SHARED_PLAIN = 48 << 10, EMULATOR_SHARED_LIMIT = 100 << 10;

/* --- for kernels: who and where am I ----------------------------------------------------------------- */

struct EmulatedThread;

/* What kernels see of the thread that runs. */
struct EmulatorNow {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
    int lane;
    void *shared; /* dynamic shared memory of the block */
};

extern EmulatorNow emulator_now;

/* Prints one line with kernel, block and thread, and aborts. */
[[noreturn]] void emulator_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- for kernels: collectives ------------------------------------------------------------------------ */

/* Where in the source a collective is called. */
struct EmulatorPlace {
    const char *what, *file;
    int line;
};

/* All threads of the block. */
void emulator_barrier(EmulatorPlace place);

/* All lanes of the mask: the last one to come calls `perform` with everyone's operand (NULL outside the
 * mask). */
typedef void (*EmulatorPerform)(void *const operands[32], unsigned mask);
void emulator_warp(EmulatorPlace place, unsigned mask, void *operand, EmulatorPerform perform);

/* Asynchronous copies of 16 bytes to shared memory, and groups of them (PTX cp.async). */
void emulator_copy_start(void *to_shared, const void *from, bool valid);
void emulator_copy_commit();
void emulator_copy_wait(int pending);

/* A random number below n. */
uint32_t emulator_random(uint32_t n);

/* True if all `bytes` lie in the block's shared memory. */
bool emulator_is_shared(const void *memory, size_t bytes);

/* --- for the host ------------------------------------------------------------------------------------ */

/* Calls the kernel once, for the thread that runs. */
typedef std::function<void()> EmulatorKernel;

struct EmulatorGrid {
    const char *name;
    dim3 grid, block;
    size_t shared_bytes;
    struct CUstream_st *stream;
    const void *function;
};

/* Runs a grid now; device memory must be open. */
void emulator_run(const EmulatorGrid &grid, const EmulatorKernel &kernel);

/* Work of a stream (NULL: the default one), run in the order of the calls when somebody waits, or, on a
 * stream that is not the first, at once if no event holds it up. Device memory is open while it runs. */
void emulator_enqueue(struct CUstream_st *stream, const char *name, std::function<void()> work);

/* Fails unless all `bytes` lie in one allocation of device memory. */
void emulator_require_device(const char *what, const void *memory, size_t bytes);

/* Fails if the launch is not legal. */
void emulator_check_launch(const EmulatorGrid &grid);

/* For the handler of bad accesses. */
bool emulator_describe_address(const void *address, char *text, size_t size);
void emulator_handle_faults();

template <typename T> void emulator_check_argument(const char *kernel, T argument)
{
    if constexpr (std::is_pointer_v<T> && !std::is_function_v<std::remove_pointer_t<T>>)
        if (argument) emulator_require_device(kernel, (const void *)argument, 1);
}

/* Arguments are converted and copied when the kernel is given to the stream, as on a GPU. */
template <typename... Parameters, typename... Arguments>
void emulator_launch(EmulatorGrid grid, void (*kernel)(Parameters...), Arguments &&...arguments)
{
    std::tuple<std::decay_t<Parameters>...> parameters(std::forward<Arguments>(arguments)...);
    grid.function = (const void *)kernel;
    emulator_check_launch(grid);
    std::apply([&](const auto &...p) { (emulator_check_argument(grid.name, p), ...); }, parameters);
    emulator_enqueue(grid.stream, grid.name, [grid, kernel, parameters] {
        emulator_run(grid, [&] { std::apply(kernel, parameters); });
    });
}

#endif
