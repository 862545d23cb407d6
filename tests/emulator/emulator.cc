/* emulator.cc - grids, blocks and threads: fibers that take turns at collectives.
 *
 * A fiber that must wait hands over to the next runnable one directly. A thread that returns without having
 * waited leaves its stack to the next thread, so kernels without collectives cost no switch at all. State is
 * static: one process has one GPU, and kernels run on one host thread.
 */
#include "emulator.h"
#include "emulated_warpgroup.h"
#include "fiber.h"

#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

EmulatorNow emulator_now;

namespace
{

enum { MAX_THREADS = 1024, WARP_LANES = 32, MAX_WARPS = MAX_THREADS / WARP_LANES };
const size_t SHARED_BYTES = 256 << 10, GUARD_BYTES = 4096;
const int POISON = 0xff; /* NaN in every floating-point type */

enum State { FRESH, RUNNABLE, AT_BARRIER, AT_WARP, RETURNED };

/* A copy of 16 bytes under way. */
struct Copy {
    void *to;
    const void *from;
    bool valid;
};

/* One thread of the block. */
struct Thread {
    uint3 index;
    int number;
    State state;
    void *stack_pointer; /* where it goes on; of RUNNABLE and waiting threads */
    char *stack;
    EmulatorPlace place; /* of the collective that it waits at */
    unsigned mask;
    void *operand;
    std::vector<Copy> copies;   /* all groups under way, oldest first */
    std::vector<size_t> groups; /* their copies; the last one is still open */
};

struct Emulator {
    Thread threads[MAX_THREADS];
    int count, returned, at_barrier;
    unsigned at_warp[MAX_WARPS], gone[MAX_WARPS],
        missing[MAX_WARPS];          /* lanes that wait, returned, do not exist */
    int current;                     /* thread that runs */
    uint16_t order[MAX_THREADS];     /* in which threads start and leave a barrier */
    uint16_t queue[2 * MAX_THREADS]; /* runnable threads, a ring */
    unsigned queue_first, queue_last;
    std::vector<char *> stacks; /* free ones */
    void *host_stack_pointer;
    bool inside;
    const EmulatorGrid *grid;
    const EmulatorKernel *kernel;
    uint64_t random;
    char *shared_end, *shared_start; /* of the block's dynamic shared memory */
    char *statics;                   /* static shared memory: the program's thread-local storage */
    size_t static_bytes;
};

Emulator *self = NULL;

char *take_stack()
{
    if (self->stacks.empty()) {
        char *stack = fiber_stack();
        if (!stack) emulator_fail("no memory for the stacks of threads");
        return stack;
    }
    char *stack = self->stacks.back();
    self->stacks.pop_back();
    return stack;
}

uint32_t random_below(uint32_t n)
{
    self->random ^= self->random << 13;
    self->random ^= self->random >> 7;
    self->random ^= self->random << 17;
    return (uint32_t)((self->random >> 32) * n >> 32);
}

/* --- what runs next ---------------------------------------------------------------------------------- */

void push(int thread)
{
    self->queue[self->queue_last++ % (2 * MAX_THREADS)] = (uint16_t)thread;
}

void become(int number)
{
    Thread *thread = &self->threads[number];
    self->current = number;
    emulator_now.thread = thread->index;
    emulator_now.lane = number % WARP_LANES;
}

/* A thread that keeps `waiting` from going on: one that has returned, or else one that waits elsewhere. */
const Thread *find_other(const Thread *waiting)
{
    const Thread *other = NULL;
    for (int i = 0; i < self->count; i++) {
        const Thread *thread = &self->threads[i];
        bool mate = waiting->state == AT_BARRIER ||
                    (i / WARP_LANES == waiting->number / WARP_LANES && waiting->mask >> i % WARP_LANES & 1);
        if (mate && thread->state == RETURNED) return thread;
        bool waits = thread->state == AT_BARRIER || thread->state == AT_WARP;
        bool same = thread->state == waiting->state && thread->place.line == waiting->place.line &&
                    (waiting->state == AT_BARRIER || thread->mask == waiting->mask);
        if (mate && waits && !same) other = thread;
    }
    return other;
}

[[noreturn]] void report_deadlock()
{
    int number = 0;
    while (self->threads[number].state != AT_WARP && self->threads[number].state != AT_BARRIER)
        number++;
    const Thread *waiting = &self->threads[number], *other = find_other(waiting);
    become(number);
    if (!other)
        emulator_fail("waits at %s (line %d) for lanes of mask %08x that the block does not have",
                      waiting->place.what, waiting->place.line, waiting->mask);
    if (other->state == RETURNED)
        emulator_fail("waits at %s (line %d), but thread %d has returned", waiting->place.what,
                      waiting->place.line, other->number);
    emulator_fail("waits at %s (line %d), but thread %d waits at %s (line %d)", waiting->place.what,
                  waiting->place.line, other->number, other->place.what, other->place.line);
}

void run_threads();

/* The next thread in the queue goes on; this one stays where it is. A fresh thread gets a new stack. */
void hand_over(void **save)
{
    if (self->queue_first == self->queue_last) report_deadlock();
    int next = self->queue[self->queue_first++ % (2 * MAX_THREADS)];
    Thread *thread = &self->threads[next];
    become(next);
    if (thread->state == FRESH) {
        thread->stack = take_stack();
        thread->stack_pointer = fiber_prepare(thread->stack, run_threads);
    }
    fiber_switch(save, thread->stack_pointer);
}

/* This thread waits until somebody pushes it again. */
void wait_here()
{
    Thread *thread = &self->threads[self->current];
    hand_over(&thread->stack_pointer);
}

/* The body of every fiber: the current thread, then on the same stack those that have not started. */
void run_threads()
{
    char *stack = self->threads[self->current].stack;
    for (;;) {
        Thread *thread = &self->threads[self->current];
        thread->state = RUNNABLE;
        thread->stack = stack;
        (*self->kernel)();
        thread = &self->threads[self->current];
        thread->state = RETURNED;
        thread->stack = NULL;
        self->returned++;
        self->gone[thread->number / WARP_LANES] |= 1u << thread->number % WARP_LANES;
        if (self->at_barrier > 0) report_deadlock();
        if (self->returned == self->count) break;
        if (self->queue_first == self->queue_last) report_deadlock();
        int next = self->queue[self->queue_first % (2 * MAX_THREADS)];
        if (self->threads[next].state != FRESH) break;
        self->queue_first++;
        become(next);
    }
    /* The stack may be given to the next fresh thread only after it was left: nothing below does that. */
    self->stacks.push_back(stack);
    void *nowhere;
    if (self->returned == self->count)
        fiber_switch(&nowhere, self->host_stack_pointer);
    else
        hand_over(&nowhere);
    abort(); /* nobody comes back to a returned thread */
}

/* --- blocks and grids -------------------------------------------------------------------------------- */

int find_statics(struct dl_phdr_info *info, size_t, void *)
{
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
        self->statics = (char *)info->dlpi_tls_data;
        self->static_bytes = self->statics ? info->dlpi_phdr[i].p_memsz : 0;
    }
    return 1; /* the program itself comes first */
}

void start_emulator()
{
    const char *seed = getenv("EMULATOR_SEED");
    self = new Emulator();
    self->random = 0x9e3779b97f4a7c15u ^ (seed ? strtoull(seed, NULL, 10) : 0);
    size_t bytes = SHARED_BYTES + GUARD_BYTES;
    char *memory = (char *)mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + SHARED_BYTES, GUARD_BYTES, PROT_NONE) != 0)
        emulator_fail("no memory for shared memory");
    self->shared_end = memory + SHARED_BYTES;
    dl_iterate_phdr(find_statics, NULL);
    emulator_handle_faults();
}

void shuffle(uint32_t n, uint16_t *order)
{
    for (uint32_t i = 0; i < n; i++)
        order[i] = (uint16_t)i;
    for (uint32_t i = n; i > 1; i--)
        std::swap(order[i - 1], order[random_below(i)]);
}

/* The bytes beside the dynamic shared memory must still be poison. */
void check_shared(size_t bytes)
{
    const unsigned char *start = (const unsigned char *)self->shared_start;
    for (const unsigned char *p = start - 128; p < (const unsigned char *)self->shared_end; p++) {
        if (p == start) p += bytes;
        if (p < (const unsigned char *)self->shared_end && *p != POISON)
            emulator_fail("wrote %td bytes from the start of %zu bytes of shared memory", p - start, bytes);
    }
}

void run_block(size_t shared_bytes)
{
    size_t rounded = (shared_bytes + 127) / 128 * 128;
    self->shared_start = self->shared_end - rounded;
    emulator_now.shared = self->shared_start;
    memset(self->shared_start - 128, POISON, rounded + 128);
    memset(self->statics, POISON, self->static_bytes);
    self->returned = self->at_barrier = 0;
    memset(self->at_warp, 0, sizeof self->at_warp);
    memset(self->gone, 0, sizeof self->gone);
    self->queue_first = self->queue_last = 0;
    emulated_warpgroup_begin(self->count, self->shared_end - SHARED_BYTES, SHARED_BYTES);
    shuffle((uint32_t)self->count, self->order);
    for (int i = 0; i < self->count; i++) {
        self->threads[i].state = FRESH;
        self->threads[i].copies.clear();
        self->threads[i].groups.assign(1, 0);
        push(self->order[i]);
    }
    hand_over(&self->host_stack_pointer);
    emulated_warpgroup_end();
    check_shared(shared_bytes);
}

} // namespace

void emulator_run(const EmulatorGrid &grid, const EmulatorKernel &kernel)
{
    if (!self) start_emulator();
    self->grid = &grid;
    self->kernel = &kernel;
    self->count = (int)(grid.block.x * grid.block.y * grid.block.z);
    self->inside = true;
    emulator_now.block_dim = grid.block;
    emulator_now.grid_dim = grid.grid;
    for (int i = 0; i < self->count; i++) {
        unsigned n = (unsigned)i, x = grid.block.x, y = grid.block.y;
        self->threads[i].index = {n % x, n / x % y, n / x / y};
        self->threads[i].number = i;
    }
    memset(self->missing, 0, sizeof self->missing);
    if (self->count % WARP_LANES) self->missing[self->count / WARP_LANES] = ~0u << self->count % WARP_LANES;
    uint64_t blocks = (uint64_t)grid.grid.x * grid.grid.y * grid.grid.z;
    std::vector<uint32_t> order(blocks);
    for (uint64_t i = 0; i < blocks; i++)
        order[i] = (uint32_t)i;
    for (uint64_t i = blocks; i > 1; i--)
        std::swap(order[i - 1], order[random_below((uint32_t)i)]);
    for (uint64_t i = 0; i < blocks; i++) {
        uint32_t b = order[i], x = grid.grid.x, y = grid.grid.y;
        emulator_now.block = {b % x, b / x % y, b / x / y};
        run_block(grid.shared_bytes);
    }
    self->inside = false;
}

/* --- collectives ------------------------------------------------------------------------------------- */

void emulator_barrier(EmulatorPlace place)
{
    Thread *thread = &self->threads[self->current];
    if (self->returned > 0) {
        thread->state = AT_BARRIER, thread->place = place;
        report_deadlock();
    }
    thread->place = place;
    if (++self->at_barrier < self->count) {
        thread->state = AT_BARRIER;
        wait_here();
        return;
    }
    self->at_barrier = 0;
    uint32_t from = random_below((uint32_t)self->count);
    for (int i = 0; i < self->count; i++) {
        int number = self->order[(from + (uint32_t)i) % (uint32_t)self->count];
        Thread *other = &self->threads[number];
        if (other == thread) continue;
        if (other->place.line != place.line)
            emulator_fail("comes to %s:%d, but thread %d waits at %s:%d", place.file, place.line, number,
                          other->place.file, other->place.line);
        other->state = RUNNABLE;
        push(number);
    }
}

/* The last lane does everybody's work. Lanes that wait elsewhere may come here later, so the others wait,
 * too. */
static void finish_warp(const Thread *thread, EmulatorPerform perform)
{
    int first = thread->number / WARP_LANES * WARP_LANES;
    void *operands[WARP_LANES] = {NULL};
    for (int lane = 0; lane < WARP_LANES; lane++) {
        if (!(thread->mask >> lane & 1)) continue;
        const Thread *mate = &self->threads[first + lane];
        if (mate->mask != thread->mask || mate->place.line != thread->place.line ||
            strcmp(mate->place.what, thread->place.what) != 0) {
            wait_here();
            return;
        }
        operands[lane] = mate->operand;
    }
    perform(operands, thread->mask);
    self->at_warp[first / WARP_LANES] &= ~thread->mask;
    for (int lane = 0; lane < WARP_LANES; lane++) {
        if (!(thread->mask >> lane & 1)) continue;
        self->threads[first + lane].state = RUNNABLE;
        if (&self->threads[first + lane] != thread) push(first + lane);
    }
}

void emulator_warp(EmulatorPlace place, unsigned mask, void *operand, EmulatorPerform perform)
{
    Thread *thread = &self->threads[self->current];
    int warp = thread->number / WARP_LANES, lane = thread->number % WARP_LANES;
    if (!(mask >> lane & 1))
        emulator_fail("%s (line %d) with a mask %08x that does not have its own lane", place.what, place.line,
                      mask);
    thread->place = place, thread->mask = mask, thread->operand = operand;
    thread->state = AT_WARP;
    self->at_warp[warp] |= 1u << lane;
    if (mask & (self->gone[warp] | self->missing[warp])) report_deadlock();
    if ((self->at_warp[warp] & mask) == mask)
        finish_warp(thread, perform);
    else
        wait_here();
}

uint32_t emulator_random(uint32_t n)
{
    return random_below(n);
}

bool emulator_is_shared(const void *memory, size_t bytes)
{
    const char *p = (const char *)memory;
    size_t dynamic = self->grid->shared_bytes;
    return (p >= self->shared_start && p + bytes <= self->shared_start + dynamic) ||
           (p >= self->statics && p + bytes <= self->statics + self->static_bytes);
}

void emulator_copy_start(void *to_shared, const void *from, bool valid)
{
    if ((uintptr_t)to_shared % 16 || (valid && (uintptr_t)from % 16))
        emulator_fail("cp_async_16: not 16-byte aligned");
    if (!emulator_is_shared(to_shared, 16)) emulator_fail("cp_async_16: to memory that is not shared");
    if (valid) emulator_require_device("cp_async_16", from, 16);
    Thread *thread = &self->threads[self->current];
    memset(to_shared, POISON, 16);
    thread->copies.push_back({to_shared, from, valid});
    thread->groups.back()++;
}

void emulator_copy_commit()
{
    self->threads[self->current].groups.push_back(0);
}

void emulator_copy_wait(int pending)
{
    Thread *thread = &self->threads[self->current];
    size_t done = 0;
    while (thread->groups.size() > (size_t)pending + 1) {
        for (size_t i = 0; i < thread->groups.front(); i++, done++) {
            const Copy *copy = &thread->copies[done];
            if (copy->valid)
                memcpy(copy->to, copy->from, 16);
            else
                memset(copy->to, 0, 16);
            emulated_warpgroup_written(thread->number, copy->to);
        }
        thread->groups.erase(thread->groups.begin());
    }
    thread->copies.erase(thread->copies.begin(), thread->copies.begin() + (ptrdiff_t)done);
}

/* --- failures ---------------------------------------------------------------------------------------- */

static void print_place()
{
    if (!self || !self->inside) return;
    uint3 b = emulator_now.block, t = emulator_now.thread;
    fprintf(stderr, "kernel %s, block (%u,%u,%u), thread (%u,%u,%u): ", self->grid->name, b.x, b.y, b.z, t.x,
            t.y, t.z);
}

void emulator_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "emulator: ");
    print_place();
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

/* The program ends here anyway, so that printing is worth the risk. */
static void on_fault(int signal_number, siginfo_t *info, void *)
{
    char text[256] = "";
    signal(signal_number, SIG_DFL);
    fprintf(stderr, "emulator: ");
    print_place();
    const char *address = (const char *)info->si_addr;
    if (self && address >= self->shared_end && address < self->shared_end + GUARD_BYTES)
        snprintf(text, sizeof text, "an access beyond shared memory");
    else if (!emulator_describe_address(address, text, sizeof text))
        snprintf(text, sizeof text, "a bad access to %p (or a stack of more than %zu KiB)", info->si_addr,
                 FIBER_STACK_BYTES >> 10);
    fprintf(stderr, "%s\n", text);
    raise(signal_number);
}

void emulator_handle_faults()
{
    static char stack[64 << 10];
    stack_t alternate = {};
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, NULL);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}
