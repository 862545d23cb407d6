/* emulated_warpgroup.cc - products of a warpgroup: descriptors decoded, and everything late.
 *
 * Source: the PTX ISA, "Asynchronous warpgroup level matrix instructions": fragments as with mma.m16n8k16,
 * rows 16 w .. of warp w; the descriptor's fields; canonical layouts in elements, T = 8 to 16 bytes,
 *     K-major   Swizzle o ((8, m), (T, 2k)) : ((span, SBO), (1, T))
 *     MN-major  Swizzle o ((span, m), (8, k)) : ((1, LBO), (span, SBO))
 * with span 64 elements and address bits 4 - 6 ^= bits 7 - 9 at 128 bytes, 32 elements and bits 4 - 5 ^= bits
 * 7 - 8 at 64. The swizzle works on the address in shared memory. Rows of 32 bytes and none are refused, and
 * so is a matrix that starts elsewhere than in the first of eight rows of the pattern (its base offset would
 * not be 0).
 *
 * A product takes place when its group is committed or when it is waited for, by chance: what it reads of
 * shared memory and left operands must be there at the first and still at the last. Results hold NaN from the
 * call until the wait. What is caught:
 *   - results that are written while under way; those that are read are NaN;
 *   - products without a fence since the last wait, groups that nobody waits for;
 *   - tiles that cp.async brought and whose writer did not call warpgroup_fence_shared (stores are not seen);
 *   - warps of one warpgroup that do not issue the same products;
 *   - wrong descriptors and layouts, by wrong numbers.
 */
#include "emulated_warpgroup.h"
#include "emulator.h"

#include <string.h>
#include <vector>

namespace
{

enum { LANES = 32, WARPS = 4, MAX_THREADS = 1024, CHUNK = 16 };

/* The result of products under way, out of the thread's reach. */
struct Result {
    float (*c)[4];
    int pieces;
    float values[EMULATED_WARPGROUP_COLUMNS / 8][4];
};

struct Thread {
    bool fenced;
    std::vector<EmulatedProduct> issued; /* not done yet */
    size_t committed;                    /* of them */
    std::vector<Result> results;
    std::vector<uint32_t> unfenced; /* chunks that it wrote */
};

/* What the warps of a warpgroup must agree on. */
struct Signature {
    uint64_t b;
    int columns, line;
    bool across, add;
};

struct Warpgroup {
    std::vector<Signature> issued;
    size_t done[WARPS];
};

struct State {
    Thread threads[MAX_THREADS];
    Warpgroup groups[MAX_THREADS / LANES / WARPS];
    int count;
    bool used; /* in this block */
    char *memory;
    size_t bytes;
    std::vector<uint16_t> writer; /* of each chunk, + 1, until it fenced; 0: none */
};

State *self = NULL;

/* Threads are numbered as the emulator does. */
int number_now()
{
    const EmulatorNow &now = emulator_now;
    return (int)(now.thread.x + now.block_dim.x * (now.thread.y + now.block_dim.y * now.thread.z));
}

Thread *thread_now()
{
    return &self->threads[number_now()];
}

/* --- the right operand ------------------------------------------------------------------------------- */

struct Layout {
    uint32_t start, block, eight; /* bytes: LBO, SBO */
    int span, bits;               /* elements of a row; of the swizzle */
};

Layout decode(const EmulatedProduct &product)
{
    uint64_t d = product.b;
    int mode = (int)(d >> 62);
    if (d & 0x3ff1c000c000c000u)
        emulator_fail("a descriptor with reserved bits: %016llx (line %d)", (unsigned long long)d,
                      product.line);
    if (d >> 49 & 7) emulator_fail("a descriptor with a base offset (line %d)", product.line);
    if (mode != 1 && mode != 2)
        emulator_fail("swizzle mode %d is not emulated (line %d)", mode, product.line);
    Layout layout = {(uint32_t)(d & 0x3fff) << 4, (uint32_t)(d >> 16 & 0x3fff) << 4,
                     (uint32_t)(d >> 32 & 0x3fff) << 4, mode == 1 ? 64 : 32, mode == 1 ? 3 : 2};
    uint32_t row = (uint32_t)layout.span * 2;
    if (layout.start % (8 * row) >= row)
        emulator_fail("a matrix that starts at %u, not in the first of eight rows (line %d)", layout.start,
                      product.line);
    return layout;
}

float element(const EmulatedProduct &product, const Layout &layout, uint32_t n, uint32_t k)
{
    uint32_t row = (uint32_t)layout.span * 2, span = (uint32_t)layout.span, offset;
    if (product.across)
        offset = n / span * layout.block + n % span * 2 + k / 8 * layout.eight + k % 8 * row;
    else
        offset = n / 8 * layout.eight + n % 8 * row + k * 2;
    uint32_t address = layout.start + offset;
    address ^= (address >> 7 & ((1u << layout.bits) - 1)) << 4;
    const char *place = self->memory + address;
    if (address + 2 > self->bytes || !emulator_is_shared(place, 2))
        emulator_fail("a product reads address %u, outside of shared memory (line %d)", address,
                      product.line);
    if (self->writer[address / CHUNK])
        emulator_fail("a product reads what thread %d brought without warpgroup_fence_shared (line %d)",
                      self->writer[address / CHUNK] - 1, product.line);
    uint16_t bits;
    memcpy(&bits, place, sizeof bits);
    return product.number(bits);
}

/* --- a warp's products ------------------------------------------------------------------------------- */

Result *result_of(Thread *thread, float (*c)[4])
{
    for (Result &result : thread->results)
        if (result.c == c) return &result;
    return NULL;
}

void multiply(Thread *const lanes[LANES], size_t index)
{
    static float b[16][EMULATED_WARPGROUP_COLUMNS], a[16][16];
    const EmulatedProduct &product = lanes[0]->issued[index];
    Layout layout = decode(product);
    for (int k = 0; k < 16; k++)
        for (int n = 0; n < product.columns; n++)
            b[k][n] = element(product, layout, (uint32_t)n, (uint32_t)k);
    for (int lane = 0; lane < LANES; lane++)
        for (int word = 0; word < 4; word++)
            for (int i = 0; i < 2; i++) {
                uint16_t bits = (uint16_t)(lanes[lane]->issued[index].a[word] >> 16 * i);
                a[lane / 4 + 8 * (word % 2)][2 * (lane % 4) + 8 * (word / 2) + i] = product.number(bits);
            }
    for (int lane = 0; lane < LANES; lane++) {
        Result *result = result_of(lanes[lane], lanes[lane]->issued[index].c);
        for (int piece = 0; piece < product.columns / 8; piece++)
            for (int e = 0; e < 4; e++) {
                int row = lane / 4 + 8 * (e / 2), column = 8 * piece + 2 * (lane % 4) + e % 2;
                float sum = product.add ? result->values[piece][e] : 0.0f;
                for (int k = 0; k < 16; k++)
                    sum += a[row][k] * b[k][column];
                result->values[piece][e] = sum;
            }
    }
}

/* Compares with what the other warps of the warpgroup issued as their i-th product. */
void agree(int thread, const EmulatedProduct &product)
{
    Warpgroup *group = &self->groups[thread / LANES / WARPS];
    size_t i = group->done[thread / LANES % WARPS]++;
    Signature own = {product.b, product.columns, product.line, product.across, product.add};
    if (i == group->issued.size()) group->issued.push_back(own);
    const Signature &other = group->issued[i];
    if (own.b != other.b || own.columns != other.columns || own.line != other.line ||
        own.across != other.across || own.add != other.add)
        emulator_fail("another warp of the warpgroup issued another product (line %d, line %d)", own.line,
                      other.line);
}

void perform(void *const operands[LANES], unsigned)
{
    Thread *lanes[LANES];
    for (int lane = 0; lane < LANES; lane++)
        lanes[lane] = (Thread *)operands[lane];
    size_t count = lanes[0]->committed;
    for (int lane = 0; lane < LANES; lane++)
        if (lanes[lane]->committed != count) emulator_fail("lanes of a warp issued different products");
    for (size_t i = 0; i < count; i++) {
        for (int lane = 0; lane < LANES; lane++)
            if (lanes[lane]->issued[i].b != lanes[0]->issued[i].b)
                emulator_fail("lanes of a warp have different descriptors (line %d)",
                              lanes[0]->issued[i].line);
        agree((int)(lanes[0] - self->threads), lanes[0]->issued[i]);
        multiply(lanes, i);
    }
    for (int lane = 0; lane < LANES; lane++) {
        lanes[lane]->issued.erase(lanes[lane]->issued.begin(),
                                  lanes[lane]->issued.begin() + (ptrdiff_t)count);
        lanes[lane]->committed = 0;
    }
}

void perform_by_chance(void *const operands[LANES], unsigned mask)
{
    if (emulator_random(2)) perform(operands, mask);
}

} // namespace

/* --- calls ------------------------------------------------------------------------------------------- */

uint32_t emulated_warpgroup_address(const void *memory)
{
    return (uint32_t)((const char *)memory - self->memory);
}

void emulated_warpgroup_fence_shared()
{
    Thread *thread = thread_now();
    for (uint32_t chunk : thread->unfenced)
        if (self->writer[chunk] == number_now() + 1) self->writer[chunk] = 0;
    thread->unfenced.clear();
}

void emulated_warpgroup_fence()
{
    thread_now()->fenced = true;
}

void emulated_warpgroup_issue(const EmulatedProduct &product)
{
    Thread *thread = thread_now();
    self->used = true;
    if (!thread->fenced) emulator_fail("a product without warpgroup_fence (line %d)", product.line);
    if (!result_of(thread, product.c)) {
        Result result = {product.c, product.columns / 8, {}};
        size_t bytes = (size_t)result.pieces * sizeof *product.c;
        memcpy(result.values, product.c, bytes);
        memset(product.c, 0xff, bytes);
        thread->results.push_back(result);
    }
    thread->issued.push_back(product);
}

void emulated_warpgroup_commit(int line)
{
    Thread *thread = thread_now();
    thread->committed = thread->issued.size();
    emulator_warp({"warpgroup_commit", "", line}, 0xffffffffu, thread, perform_by_chance);
}

void emulated_warpgroup_wait(int line)
{
    Thread *thread = thread_now();
    if (thread->committed != thread->issued.size())
        emulator_fail("a wait for products that were not committed (line %d)", line);
    emulator_warp({"warpgroup_wait", "", line}, 0xffffffffu, thread, perform);
    for (const Result &result : thread->results) {
        const unsigned char *now = (const unsigned char *)result.c;
        size_t bytes = (size_t)result.pieces * sizeof *result.c;
        for (size_t i = 0; i < bytes; i++)
            if (now[i] != 0xff) emulator_fail("a result was written while under way (line %d)", line);
        memcpy(result.c, result.values, bytes);
    }
    thread->results.clear();
    thread->fenced = false;
}

/* --- blocks ------------------------------------------------------------------------------------------ */

void emulated_warpgroup_begin(int threads, char *memory, size_t bytes)
{
    if (!self) {
        self = new State();
        self->used = true; /* what is not set up yet */
    }
    self->count = threads;
    self->memory = memory;
    self->bytes = bytes;
    if (!self->used) return;
    self->used = false;
    self->writer.assign(bytes / CHUNK, 0);
    for (Thread &thread : self->threads) {
        thread.fenced = false;
        thread.unfenced.clear();
    }
    for (Warpgroup &group : self->groups) {
        group.issued.clear();
        memset(group.done, 0, sizeof group.done);
    }
}

void emulated_warpgroup_end()
{
    if (!self->used) return;
    for (int i = 0; i < self->count; i++)
        if (!self->threads[i].results.empty()) emulator_fail("thread %d left products under way", i);
    for (const Warpgroup &group : self->groups)
        for (int warp = 0; warp < WARPS; warp++)
            if (group.done[warp] != group.issued.size())
                emulator_fail("warp %d issued %zu products, its warpgroup %zu", warp, group.done[warp],
                              group.issued.size());
}

void emulated_warpgroup_written(int thread, const void *to)
{
    uint32_t address = emulated_warpgroup_address(to);
    if (address >= self->bytes) return; /* static shared memory */
    self->used = true;
    self->writer[address / CHUNK] = (uint16_t)(thread + 1);
    self->threads[thread].unfenced.push_back(address / CHUNK);
}
