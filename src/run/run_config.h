/* run_config.h - the resolved configuration of a job: defaults < files in order < key=value < --output-dir.
 */
#ifndef DINOBATCH_RUN_RUN_CONFIG_H
#define DINOBATCH_RUN_RUN_CONFIG_H

#include "base/log.h"
#include "base/status.h"
#include "comm/comm.h"
#include "config/config.h"
#include "run/options.h"

/* Initialises `config` and overlays what the options name, then checks it, unless a job is given a
 * checkpoint, under whose configuration the options count (eval/eval_model.h). On failure (STATUS_INPUT)
 * nothing is left to release; else config_fini. Not collective: every rank reads for itself. */
Status run_config_load(Config *config, const Options *options, Error *error);

/* The same on all ranks with an agreed outcome; ranks that read different configurations (a file that differs
 * between nodes) are STATUS_INPUT. Logs the keys that have no effect. Collective over COMM. */
Status run_config_load_all(Config *config, const Options *options, Comm *comm, Log *log, Error *error);

#endif
