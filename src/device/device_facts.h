/* device_facts.h - what this build and this machine can do with GPUs, as text for a reader. */
#ifndef DINOBATCH_DEVICE_DEVICE_FACTS_H
#define DINOBATCH_DEVICE_DEVICE_FACTS_H

typedef struct {
    char name[32];   /* "driver", "gpu 0", ... */
    char value[224]; /* one line */
} DeviceFact;

enum { DEVICE_FACTS_MAX = 24 };

/* Fills in what is known and returns how many facts that are: the build, the driver, each GPU, the libraries,
 * and what `compute.device: auto` would choose. Opens no GPU. Without CUDA in this build it says so. */
int device_facts(DeviceFact facts[DEVICE_FACTS_MAX]);

#endif
