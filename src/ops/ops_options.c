/* ops_options.c - see ops_options.h. */
#include "ops/ops_options.h"

Status ops_options_from(OpsOptions *options, const Config *config, const Device *device, int threads,
                        Error *error)
{
    static const OpsAttention attention[] = {[CONFIG_ATTENTION_AUTO] = OPS_ATTENTION_AUTO,
                                             [CONFIG_ATTENTION_SM80] = OPS_ATTENTION_SM80,
                                             [CONFIG_ATTENTION_SM90] = OPS_ATTENTION_SM90};
    *options = (OpsOptions){.threads = threads, .attention = attention[config->compute.attention]};
    if (ops_attention_works(device, options->attention)) return STATUS_OK;
    int architecture = device_architecture(device);
    return status_fail(
        error, STATUS_INPUT,
        "compute.attention: sm90 needs a GPU of compute capability 9.0 (H100, H200); %s has %d.%d",
        device_name(device), architecture / 10, architecture % 10);
}
