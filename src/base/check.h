/* check.h - asserts for our own bugs, always on.
 *
 * CHECK states what the code around it relies on; it stays in release builds, because a silent wrong result
 * after days of training costs more than a comparison. Never used for input: that returns a Status.
 */
#ifndef DINOBATCH_BASE_CHECK_H
#define DINOBATCH_BASE_CHECK_H

/* Prints file, line and condition and aborts. */
_Noreturn void check_failed(const char *file, int line, const char *condition);

#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))

#endif
