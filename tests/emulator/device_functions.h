/* device_functions.h - what kernels call: barriers, warp operations, atomics, arithmetic. */
#ifndef DINOBATCH_TESTS_EMULATOR_DEVICE_FUNCTIONS_H
#define DINOBATCH_TESTS_EMULATOR_DEVICE_FUNCTIONS_H

#include "emulator.h"

#include <algorithm>
#include <math.h>
#include <string.h>

/* --- barriers ---------------------------------------------------------------------------------------- */

#define __syncthreads() emulator_barrier({"__syncthreads", __FILE__, __LINE__})

static inline void __threadfence()
{
}
static inline void __threadfence_block()
{
}

/* --- warps ------------------------------------------------------------------------------------------- */

/* A lane's part of a shuffle, and of a vote. */
template <typename T> struct EmulatedShuffle {
    T in, out;
    int source;
};

struct EmulatedVote {
    bool in;
    unsigned out;
};

static inline void emulated_nothing(void *const *, unsigned)
{
}

template <typename T> void emulated_shuffle_perform(void *const operands[32], unsigned mask)
{
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        EmulatedShuffle<T> *to = (EmulatedShuffle<T> *)operands[lane];
        if (!(mask >> to->source & 1))
            emulator_fail("lane %d reads lane %d outside of the mask", lane, to->source);
        to->out = ((EmulatedShuffle<T> *)operands[to->source])->in;
    }
}

static inline void emulated_vote_perform(void *const operands[32], unsigned mask)
{
    unsigned votes = 0;
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1 && ((EmulatedVote *)operands[lane])->in) votes |= 1u << lane;
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) ((EmulatedVote *)operands[lane])->out = votes;
}

template <typename T> T emulated_shuffle(const char *what, int line, unsigned mask, T value, int source)
{
    EmulatedShuffle<T> part;
    part.in = value;
    part.source = source;
    emulator_warp({what, "", line}, mask, &part, emulated_shuffle_perform<T>);
    return part.out;
}

static inline unsigned emulated_vote(const char *what, int line, unsigned mask, bool value)
{
    EmulatedVote part = {value, 0};
    emulator_warp({what, "", line}, mask, &part, emulated_vote_perform);
    return part.out;
}

static inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE())
{
    emulator_warp({"__syncwarp", "", line}, mask, NULL, emulated_nothing);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE())
{
    int first = emulator_now.lane & ~(width - 1);
    return emulated_shuffle("__shfl_sync", line, mask, value, first | (source & (width - 1)));
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, int line = __builtin_LINE())
{
    int lane = emulator_now.lane, source = lane ^ lanes, last = lane | (width - 1);
    return emulated_shuffle("__shfl_xor_sync", line, mask, value, source > last ? lane : source);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE())
{
    int lane = emulator_now.lane, source = lane + (int)delta, last = lane | (width - 1);
    return emulated_shuffle("__shfl_down_sync", line, mask, value, source > last ? lane : source);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE())
{
    int lane = emulator_now.lane, source = lane - (int)delta, first = lane & ~(width - 1);
    return emulated_shuffle("__shfl_up_sync", line, mask, value, source < first ? lane : source);
}

static inline unsigned __ballot_sync(unsigned mask, int value, int line = __builtin_LINE())
{
    return emulated_vote("__ballot_sync", line, mask, value != 0);
}

static inline int __any_sync(unsigned mask, int value, int line = __builtin_LINE())
{
    return emulated_vote("__any_sync", line, mask, value != 0) != 0;
}

static inline int __all_sync(unsigned mask, int value, int line = __builtin_LINE())
{
    return emulated_vote("__all_sync", line, mask, value != 0) == mask;
}

/* --- atomics: one fiber runs at a time --------------------------------------------------------------- */

template <typename T> T emulated_exchange(T *memory, T value)
{
    T before = *memory;
    *memory = value;
    return before;
}
template <typename T> T atomicAdd(T *memory, std::common_type_t<T> value)
{
    return emulated_exchange<T>(memory, *memory + value);
}
template <typename T> T atomicMax(T *memory, std::common_type_t<T> value)
{
    return emulated_exchange<T>(memory, std::max<T>(*memory, value));
}
template <typename T> T atomicMin(T *memory, std::common_type_t<T> value)
{
    return emulated_exchange<T>(memory, std::min<T>(*memory, value));
}
template <typename T> T atomicOr(T *memory, std::common_type_t<T> value)
{
    return emulated_exchange<T>(memory, *memory | value);
}
template <typename T> T atomicExch(T *memory, std::common_type_t<T> value)
{
    return emulated_exchange<T>(memory, value);
}
template <typename T> T atomicCAS(T *memory, std::common_type_t<T> compare, std::common_type_t<T> value)
{
    return emulated_exchange<T>(memory, *memory == compare ? value : *memory);
}
static inline unsigned atomicInc(unsigned *memory, unsigned last)
{
    return emulated_exchange<unsigned>(memory, *memory >= last ? 0 : *memory + 1);
}

/* --- memory ------------------------------------------------------------------------------------------ */

template <typename T> T __ldg(const T *memory)
{
    return *memory;
}
template <typename T> T __ldcs(const T *memory)
{
    return *memory;
}
template <typename T> T __ldcg(const T *memory)
{
    return *memory;
}
template <typename T> void __stcs(T *memory, std::common_type_t<T> value)
{
    *memory = value;
}
template <typename T> void __stcg(T *memory, std::common_type_t<T> value)
{
    *memory = value;
}

/* --- arithmetic -------------------------------------------------------------------------------------- */

/* glibc declares functions of these names. */
#define __expf(x)      expf(x)
#define __exp10f(x)    exp10f(x)
#define __logf(x)      logf(x)
#define __log2f(x)     log2f(x)
#define __log10f(x)    log10f(x)
#define __sinf(x)      sinf(x)
#define __cosf(x)      cosf(x)
#define __tanhf(x)     tanhf(x)
#define __powf(x, y)   powf(x, y)
#define __sincosf(...) sincosf(__VA_ARGS__)

template <typename To, typename From> To emulated_bits(From value)
{
    static_assert(sizeof(To) == sizeof(From), "the same size");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline double rsqrt(double x)
{
    return 1.0 / sqrt(x);
}
static inline float __frsqrt_rn(float x)
{
    return 1.0f / sqrtf(x);
}
static inline float __frcp_rn(float x)
{
    return 1.0f / x;
}
static inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
static inline float __fdividef(float x, float y)
{
    return x / y;
}
static inline float __fdiv_rn(float x, float y)
{
    return x / y;
}
static inline float __fadd_rn(float x, float y)
{
    return x + y;
}
static inline float __fsub_rn(float x, float y)
{
    return x - y;
}
static inline float __fmul_rn(float x, float y)
{
    return x * y;
}
static inline float __fmaf_rn(float x, float y, float z)
{
    return fmaf(x, y, z);
}
static inline double __dadd_rn(double x, double y)
{
    return x + y;
}
static inline double __dmul_rn(double x, double y)
{
    return x * y;
}
static inline double __fma_rn(double x, double y, double z)
{
    return fma(x, y, z);
}
static inline float __saturatef(float x)
{
    return x > 0.0f ? fminf(x, 1.0f) : 0.0f;
}
static inline int __float_as_int(float x)
{
    return emulated_bits<int>(x);
}
static inline unsigned __float_as_uint(float x)
{
    return emulated_bits<unsigned>(x);
}
static inline float __int_as_float(int x)
{
    return emulated_bits<float>(x);
}
static inline float __uint_as_float(unsigned x)
{
    return emulated_bits<float>(x);
}
static inline long long __double_as_longlong(double x)
{
    return emulated_bits<long long>(x);
}
static inline double __longlong_as_double(long long x)
{
    return emulated_bits<double>(x);
}
static inline int __float2int_rn(float x)
{
    return (int)rintf(x);
}
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}

#define EMULATED_MIN_MAX(type)             \
    static inline type min(type a, type b) \
    {                                      \
        return b < a ? b : a;              \
    }                                      \
    static inline type max(type a, type b) \
    {                                      \
        return a < b ? b : a;              \
    }
EMULATED_MIN_MAX(int)
EMULATED_MIN_MAX(unsigned)
EMULATED_MIN_MAX(long)
EMULATED_MIN_MAX(unsigned long)
EMULATED_MIN_MAX(long long)
EMULATED_MIN_MAX(unsigned long long)
#undef EMULATED_MIN_MAX
static inline float min(float a, float b)
{
    return fminf(a, b);
}
static inline float max(float a, float b)
{
    return fmaxf(a, b);
}
static inline double min(double a, double b)
{
    return fmin(a, b);
}
static inline double max(double a, double b)
{
    return fmax(a, b);
}

#endif
