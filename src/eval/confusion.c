/* confusion.c - see confusion.h. */
#include "eval/confusion.h"

#include <math.h>

void confusion_figures(ConfusionFigures *out, double *iou, const double *table, int64_t classes)
{
    double pixels = 0.0, right = 0.0, shares = 0.0, accuracies = 0.0;
    int64_t occurring = 0, in_truth = 0;
    for (int64_t k = 0; k < classes; k++) {
        double truth = 0.0, said = 0.0, both = table[k * classes + k];
        for (int64_t j = 0; j < classes; j++) {
            truth += table[k * classes + j];
            said += table[j * classes + k];
        }
        double either = truth + said - both;
        iou[k] = either > 0.0 ? both / either : NAN;
        pixels += truth;
        right += both;
        occurring += either > 0.0;
        in_truth += truth > 0.0;
        if (either > 0.0) shares += iou[k];
        if (truth > 0.0) accuracies += both / truth;
    }
    *out = (ConfusionFigures){.pixels = (int64_t)pixels};
    if (pixels <= 0.0) return;
    out->miou = shares / (double)occurring;
    out->pixel_accuracy = right / pixels;
    out->class_accuracy = accuracies / (double)in_truth;
}
