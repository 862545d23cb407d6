/* emulated_runtime.cc - device memory behind a wall, queues of work, and the runtime's calls on them.
 *
 * Device memory is one reserved region. Its pages cannot be touched but while work of the stream runs, so
 * host code that follows a device pointer ends in a fault. Between allocations lie redzones of NaN bytes,
 * compared after each piece of work. Work of the first stream waits in its queue until the host waits for it:
 * what was not waited for is not there yet. Work of another stream runs as soon as the events that it waits
 * for allow: what it should have waited for is not there either.
 */
#include "cuda_runtime.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unordered_map>
#include <vector>

enum { REDZONE = 512, ALIGNMENT = 512, MAX_QUEUED = 512, POISON_BYTE = 0xff };
static const size_t REGION_BYTES = (size_t)64 << 30, HUGE_PAGE = (size_t)2 << 20;

struct Work {
    const char *name;
    std::function<void()> run;
    cudaStream_t other; /* to be waited for, until it has done `after` pieces; NULL: none */
    uint64_t after;
};

struct CUstream_st {
    bool early; /* not the first one */
    std::deque<Work> queue;
    uint64_t given;
    std::atomic<uint64_t> done; /* a watchdog's thread reads it */
};

struct CUevent_st {
    cudaStream_t stream; /* of the last record; NULL: none yet */
    uint64_t after;      /* pieces of work given to it by then */
    double time;         /* when it was reached */
};

namespace
{

struct Block {
    char *memory;
    size_t bytes;
};

struct Runtime {
    char *region, *top;                /* reserved; allocations lie below top */
    std::vector<Block> blocks, pinned; /* ascending; any order */
    size_t used;
    int open;                          /* depth of opened memory */
    std::vector<cudaStream_t> streams; /* the default one first; never freed, since events name them */
    int streams_live;                  /* made and not destroyed */
    pthread_t thread;                  /* that runs work */
    bool eager;
    std::unordered_map<const void *, int> shared_allowed; /* by kernel */
};

Runtime *self = NULL;

void start()
{
    if (self) return;
    self = new Runtime();
    void *region = mmap(NULL, REGION_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED) emulator_fail("no address space for device memory");
    self->region = (char *)(((uintptr_t)region + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    self->top = self->region;
    madvise(self->region, REGION_BYTES - HUGE_PAGE,
            MADV_HUGEPAGE); /* makes opening and closing a hundred times faster */
    self->streams.push_back(new CUstream_st());
    self->thread = pthread_self();
    self->eager = getenv("EMULATOR_EAGER") != NULL;
    emulator_handle_faults();
}

void protect(int protection)
{
    size_t bytes = ((size_t)(self->top - self->region) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (bytes > 0 && mprotect(self->region, bytes, protection) != 0)
        emulator_fail("mprotect of device memory");
}

void open_memory()
{
    if (self->open++ == 0) protect(PROT_READ | PROT_WRITE);
}

void close_memory()
{
    if (--self->open == 0) protect(PROT_NONE);
}

bool is_poison(const char *from, const char *to)
{
    for (; from < to; from++)
        if (*from != (char)POISON_BYTE) return false;
    return true;
}

/* Where the redzone behind a block ends. */
char *block_end(const Block &block)
{
    return block.memory + (block.bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + REDZONE;
}

void check_redzones(const char *after)
{
    for (const Block &block : self->blocks)
        if (!is_poison(block.memory - REDZONE, block.memory) ||
            !is_poison(block.memory + block.bytes, block_end(block)))
            emulator_fail("%s wrote beyond an allocation of %zu bytes", after, block.bytes);
}

void run_until(cudaStream_t stream, uint64_t count);

/* The next piece of a stream, and what it waits for on others. */
void run_one(cudaStream_t stream)
{
    Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    if (work.other) run_until(work.other, work.after);
    if (work.run) work.run();
    stream->done++;
    check_redzones(work.name);
}

/* Runs what was given to a stream until `count` pieces are done. */
void run_until(cudaStream_t stream, uint64_t count)
{
    if (stream->done >= count) return;
    open_memory();
    while (stream->done < count)
        run_one(stream);
    close_memory();
}

/* Runs what no event holds up. */
void run_early(cudaStream_t stream)
{
    open_memory();
    while (!stream->queue.empty()) {
        const Work &next = stream->queue.front();
        if (next.other && next.other->done < next.after) break;
        run_one(stream);
    }
    close_memory();
}

void run_all()
{
    start();
    for (cudaStream_t stream : self->streams)
        run_until(stream, stream->given);
}

cudaStream_t stream_of(cudaStream_t stream)
{
    start();
    return stream ? stream : self->streams[0];
}

void give(cudaStream_t stream, Work work)
{
    stream->queue.push_back(std::move(work));
    stream->given++;
    if (self->eager)
        run_all();
    else if (stream->early)
        run_early(stream);
    else if (stream->queue.size() > MAX_QUEUED)
        run_until(stream, stream->done + 1);
}

const Block *find_block(const void *memory)
{
    const char *p = (const char *)memory;
    auto next =
        std::upper_bound(self->blocks.begin(), self->blocks.end(), p,
                         [](const char *address, const Block &block) { return address < block.memory; });
    if (next == self->blocks.begin()) return NULL;
    const Block *block = &*(next - 1);
    return p < block_end(*block) ? block : NULL;
}

bool in_region(const void *memory)
{
    const char *p = (const char *)memory;
    return self && p >= self->region && p < self->region + REGION_BYTES - HUGE_PAGE;
}

/* Inside of one pinned block. A host range that lies elsewhere is pageable. */
bool is_pinned(const void *memory, size_t bytes)
{
    const char *p = (const char *)memory;
    for (const Block &block : self->pinned)
        if (p >= block.memory && p + bytes <= block.memory + block.bytes) return true;
    return false;
}

double seconds()
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

} // namespace

/* --- for the emulator -------------------------------------------------------------------------------- */

void emulator_enqueue(cudaStream_t stream, const char *name, std::function<void()> work)
{
    stream = stream_of(stream);
    give(stream, {name, std::move(work), NULL, 0});
}

void emulator_require_device(const char *what, const void *memory, size_t bytes)
{
    if (!in_region(memory)) emulator_fail("%s: %p is no device memory", what, memory);
    const Block *block = find_block(memory);
    const char *p = (const char *)memory;
    /* one past the end is a legal pointer of an empty operand */
    if (!block || p < block->memory ||
        p + (bytes > 1 ? bytes : 0) > block->memory + std::max<size_t>(block->bytes, 1))
        emulator_fail("%s: %zu bytes at %p are not inside of one allocation", what, bytes, memory);
}

void emulator_check_launch(const EmulatorGrid &grid)
{
    start();
    uint64_t threads = (uint64_t)grid.block.x * grid.block.y * grid.block.z;
    auto allowed = self->shared_allowed.find(grid.function);
    size_t limit = allowed == self->shared_allowed.end() ? EMULATOR_SHARED_PLAIN : (size_t)allowed->second;
    if (threads == 0 || threads > 1024)
        emulator_fail("%s: %llu threads", grid.name, (unsigned long long)threads);
    if (grid.grid.x > 0x7fffffffu || grid.grid.y > 65535 || grid.grid.z > 65535)
        emulator_fail("%s: a grid of %u x %u x %u", grid.name, grid.grid.x, grid.grid.y, grid.grid.z);
    if (grid.shared_bytes > limit)
        emulator_fail("%s: %zu bytes of shared memory, %zu allowed", grid.name, grid.shared_bytes, limit);
}

bool emulator_describe_address(const void *address, char *text, size_t size)
{
    if (!in_region(address)) return false;
    const Block *block = find_block(address);
    if (!block)
        snprintf(text, size, "an access to device memory outside of all allocations");
    else if (self->open == 0)
        snprintf(text, size, "the host touches device memory, %td bytes from the start of %zu",
                 (const char *)address - block->memory, block->bytes);
    else
        snprintf(text, size, "an access %td bytes from the start of an allocation of %zu",
                 (const char *)address - block->memory, block->bytes);
    return true;
}

cudaError_t emulator_set_attribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    start();
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value > EMULATOR_SHARED_LIMIT) return cudaErrorInvalidValue;
    self->shared_allowed[kernel] = std::max(value, EMULATOR_SHARED_PLAIN);
    return cudaSuccess;
}

/* --- memory ------------------------------------------------------------------------------------------ */

cudaError_t cudaDeviceSynchronize()
{
    run_all();
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    start();
    *total = EMULATOR_DEVICE_BYTES;
    *available = EMULATOR_DEVICE_BYTES - self->used;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    start();
    *memory = NULL;
    if (bytes > EMULATOR_DEVICE_BYTES - self->used) return cudaErrorMemoryAllocation;
    Block block = {self->top + REDZONE, bytes};
    if (block_end(block) > self->region + REGION_BYTES - HUGE_PAGE)
        emulator_fail("address space of device memory is used up");
    open_memory();
    self->top = block_end(block);
    protect(PROT_READ | PROT_WRITE);
    memset(block.memory - REDZONE, POISON_BYTE, REDZONE);
    memset(block.memory + bytes, POISON_BYTE, (size_t)(block_end(block) - block.memory) - bytes);
    /* what is large is left to the system's zero pages: device_alloc clears it, and that takes long enough */
    if (bytes <= (size_t)1 << 20) memset(block.memory, POISON_BYTE, bytes);
    close_memory();
    self->blocks.push_back(block);
    self->used += bytes;
    *memory = block.memory;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    run_all();
    if (!memory) return cudaSuccess;
    for (size_t i = 0; i < self->blocks.size(); i++) {
        Block block = self->blocks[i];
        if (block.memory != memory) continue;
        self->used -= block.bytes;
        self->blocks.erase(self->blocks.begin() + (ptrdiff_t)i);
        open_memory();
        memset(block.memory, POISON_BYTE, std::min(block.bytes, (size_t)1 << 20));
        close_memory();
        if (self->blocks.empty()) {
            self->top = self->region;
        }
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    start();
    *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!*memory) return cudaErrorMemoryAllocation;
    memset(*memory, POISON_BYTE, bytes);
    self->pinned.push_back({(char *)*memory, bytes});
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
    return cudaMallocHost(memory, bytes);
}

cudaError_t cudaFreeHost(void *memory)
{
    run_all();
    for (size_t i = 0; i < self->pinned.size(); i++) {
        if (self->pinned[i].memory != memory) continue;
        self->pinned.erase(self->pinned.begin() + (ptrdiff_t)i);
        free(memory);
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    emulator_require_device("cudaMemset", memory, bytes);
    emulator_enqueue(stream, "cudaMemset", [=] { memset(memory, value, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes)
{
    return cudaMemsetAsync(memory, value, bytes);
}

/* Pageable memory: an upload leaves a copy behind, a download waits. Pinned memory is used when the work
 * runs, and what a download will write is NaN until then. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    start();
    bool to_device = in_region(to), from_device = in_region(from);
    if (kind != cudaMemcpyDefault &&
        kind != (to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
                           : cudaMemcpyDeviceToHost))
        emulator_fail("cudaMemcpy: the kind does not fit the memory");
    if (to_device) emulator_require_device("cudaMemcpy, to", to, bytes);
    if (from_device) emulator_require_device("cudaMemcpy, from", from, bytes);
    if (to_device && from_device && (char *)to < (char *)from + bytes && (char *)from < (char *)to + bytes)
        emulator_fail("cudaMemcpy: the ranges overlap");
    if (!from_device && !is_pinned(from, bytes)) {
        std::vector<char> copy((const char *)from, (const char *)from + bytes);
        emulator_enqueue(stream, "cudaMemcpy", [to, copy] { memcpy(to, copy.data(), copy.size()); });
        return cudaSuccess;
    }
    bool pinned = !to_device && is_pinned(to, bytes);
    if (pinned) memset(to, POISON_BYTE, bytes);
    emulator_enqueue(stream, "cudaMemcpy", [=] { memcpy(to, from, bytes); });
    if (!to_device && !pinned) run_until(stream_of(stream), stream_of(stream)->given);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind);
    run_all();
    return error;
}

/* --- streams and events ------------------------------------------------------------------------------ */

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    start();
    *stream = new CUstream_st();
    (*stream)->early = self->streams_live++ > 0;
    self->streams.push_back(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    return cudaStreamCreate(stream);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    run_until(stream, stream->given);
    self->streams_live--;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    stream = stream_of(stream);
    run_until(stream, stream->given);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    if (event->stream) give(stream_of(stream), {"cudaStreamWaitEvent", nullptr, event->stream, event->after});
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    *event = new CUevent_st();
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    return cudaEventCreate(event);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    run_all();
    delete event;
    return cudaSuccess;
}

/* Known before the work is given: that may run at once. */
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    event->stream = stream_of(stream);
    event->after = event->stream->given + 1;
    emulator_enqueue(stream, "cudaEventRecord", [event] { event->time = seconds(); });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    if (event->stream) run_until(event->stream, event->after);
    return cudaSuccess;
}

/* Whoever polls gets there; another thread only looks. */
cudaError_t cudaEventQuery(cudaEvent_t event)
{
    if (!event->stream || event->stream->done >= event->after) return cudaSuccess;
    if (pthread_equal(pthread_self(), self->thread)) run_until(event->stream, event->stream->done + 1);
    return cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    for (cudaEvent_t event : {from, to})
        if (event->stream && event->stream->done < event->after) return cudaErrorNotReady;
    *milliseconds = (float)(1e3 * (to->time - from->time));
    return cudaSuccess;
}
