/* fiber.h - stacks, and going from one to another. */
#ifndef DINOBATCH_TESTS_EMULATOR_FIBER_H
#define DINOBATCH_TESTS_EMULATOR_FIBER_H

#include <stddef.h>

/* Bytes of a stack; below it lies a page that nobody may touch. */
const size_t FIBER_STACK_BYTES = 128 << 10;

/* The low end of a new stack, or NULL. Never given back: the caller uses it again. */
char *fiber_stack();

/* Where to go to start `entry`, which never returns, on that stack. */
void *fiber_prepare(char *stack, void (*entry)());

/* Leaves this stack at *save and goes on at `to`. */
extern "C" void fiber_switch(void **save, void *to);

#endif
