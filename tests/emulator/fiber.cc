/* fiber.cc - from one stack to another: the one place with assembly.
 *
 * ucontext would do it with two system calls each time.
 */
#include "fiber.h"

#include <string.h>
#include <sys/mman.h>

static const size_t GUARD_BYTES = 64 << 10;

char *fiber_stack()
{
    size_t bytes = GUARD_BYTES + FIBER_STACK_BYTES;
    void *memory = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    char *stack = (char *)memory + GUARD_BYTES;
    return mprotect(stack, FIBER_STACK_BYTES, PROT_READ | PROT_WRITE) == 0 ? stack : NULL;
}

#if defined(__x86_64__)
asm(".text\n"
    ".globl fiber_switch\n"
    ".type fiber_switch, @function\n"
    "fiber_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size fiber_switch, .-fiber_switch\n");

/* A stack on which `entry` starts when it is switched to: six registers and the return address. */
void *fiber_prepare(char *stack, void (*entry)())
{
    void **top = (void **)(stack + FIBER_STACK_BYTES);
    top[-1] = NULL;
    top[-2] = (void *)entry;
    memset(top - 8, 0, 6 * sizeof *top);
    return top - 8;
}
#else
#error "the emulator knows the registers of x86-64 only"
#endif
