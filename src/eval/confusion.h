/* confusion.h - which class was taken for which, pixel by pixel, and the figures that come from it.
 *
 * Source: mmsegmentation's metrics (mIoU, mAcc, aAcc). Counts of pictures and ranks are added up before any
 * figure is made.
 */
#ifndef DINOBATCH_EVAL_CONFUSION_H
#define DINOBATCH_EVAL_CONFUSION_H

#include <stdint.h>

/* Shares. */
typedef struct {
    double miou;           /* mean of IoU over the classes that occur, in the truth or in what was said */
    double pixel_accuracy; /* pixels that are right */
    double class_accuracy; /* mean over the classes that occur in the truth of the share that is right */
    int64_t pixels;
} ConfusionFigures;

/* iou[classes] = right / (truth + said - right) of table[classes, classes], pixels by truth, then by what was
 * said; NaN for a class that does not occur. Without pixels all is 0. */
void confusion_figures(ConfusionFigures *out, double *iou, const double *table, int64_t classes);

#endif
