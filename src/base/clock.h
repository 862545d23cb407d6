/* clock.h - monotonic seconds, and wall time as text. */
#ifndef DINOBATCH_BASE_CLOCK_H
#define DINOBATCH_BASE_CLOCK_H

/* Seconds since an arbitrary start, never going back. */
double clock_seconds(void);

/* "2026-11-23T00:45:10Z" of now, UTC. `text` holds at least 24 bytes. */
void clock_utc(char *text, int size);

#endif
