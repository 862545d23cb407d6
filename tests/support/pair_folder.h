/* pair_folder.h - pictures with masks or depths in a folder, as `pairs:` reads it. */
#ifndef DINOBATCH_TESTS_SUPPORT_PAIR_FOLDER_H
#define DINOBATCH_TESTS_SUPPORT_PAIR_FOLDER_H

#include <stdint.h>

/* Makes FOLDER and FOLDER/images, FOLDER/MASKS. False on failure, as are the others. */
_Bool pair_folder_make(const char *folder, const char *masks);

/* FOLDER/images/NAME.png of rgb[height, width, 3], or FOLDER/PART/NAME.png of gray[height, width], 8 or 16
 * bits. */
_Bool pair_folder_add_picture(const char *folder, const char *name, const uint8_t *rgb, int width,
                              int height);
_Bool pair_folder_add_gray(const char *folder, const char *part, const char *name, const uint16_t *gray,
                           int width, int height, int bits);

/* `count` scenes of width x height with FOLDER/depth in millimetres: a plane between 1 and 9 m that is seen
 * from above, a nearer box on it, no depth in a corner; what is nearer is brighter, more or less. */
_Bool pair_folder_draw_depth(const char *folder, int count, int width, int height, uint64_t seed);

#endif
