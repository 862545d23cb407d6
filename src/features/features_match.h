/* features_match.h - whether rows of two features files can be compared, and a digest of what a file is. */
#ifndef DINOBATCH_FEATURES_FEATURES_MATCH_H
#define DINOBATCH_FEATURES_FEATURES_MATCH_H

#include "features/features_file.h"

/* STATUS_INPUT, naming both files and what differs: columns, arch, layer, model, whitening, or the size of
 * the pictures. Of models and whitening only the files' names are compared, not the folders that they lay in.
 */
Status features_match(const FeaturesFile *a, const FeaturesFile *b, Error *error);

/* STATUS_INPUT, naming both files and their lists, where the two have not the same views. */
Status features_match_views(const FeaturesFile *a, const FeaturesFile *b, Error *error);

/* STATUS_INPUT, naming both files, where the pictures of one alone are upside down. */
Status features_match_upright(const FeaturesFile *a, const FeaturesFile *b, Error *error);

/* Goes on with *digest (RNG_HASH_START, or that of the files before): what the file says of itself, and up to
 * 16 rows and keys spread over it. STATUS_INPUT or STATUS_FAILED: they cannot be read. */
Status features_digest(const FeaturesFile *file, uint64_t *digest, Error *error);

#endif
