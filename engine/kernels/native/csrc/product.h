/* Products of rows with a weight, x weight^T + bias, and what is done with the results at once.
 *
 * Weights are stored in panels of 64 output channels. One instruction multiplies n inputs of a channel,
 * 1 of float, 2 of bf16 and 4 of int8, and these lie side by side: [panel][input / n][channel][n].
 * A microkernel multiplies up to 6 rows by one panel; its sums stay in registers. */

#ifndef TIDEMILL_PRODUCT_H
#define TIDEMILL_PRODUCT_H

#include "rows.h"
#include "team.h"

#define PANEL 64 /* output channels of a panel: four registers of sums a row */
#define HALF 32  /* the same of grouped weights */
#define ROWS 6   /* of a microkernel: 6 x 4 sums, 4 weights and an input are 29 of 32 registers */
#define BAND 96  /* rows that share a panel while it is in the cache */

typedef struct {
    int64_t kind, inputs, outputs, group, bits;
    const void *panels;
    const float *scales;   /* INT8 [outputs]; GROUPED [panel][half][group][32]; padded to panels */
    const float *lows;     /* GROUPED, as `scales`: what a stored 0 stands for */
    const int32_t *starts; /* INT8 [outputs]: -128 times the sum of each channel's values */
    const float *bias;     /* [outputs], padded, or NULL */
} weight;

/* What becomes of y = x weight^T + bias. */
enum {
    END_PUT,  /* out = y */
    END_ADD,  /* out += y */
    END_GATE, /* channels are 16 gates, 16 others, and so on: out = silu(gate) other, half as wide */
    END_ARGMAX /* the argmax of each row; and out = y, unless it is NULL */
};

typedef struct {
    float value;
    int32_t channel;
} argmax;

typedef struct {
    const rows *x;
    const weight *w;
    int64_t tokens, end;
    float *out;       /* [tokens, outputs], of END_GATE [tokens, outputs / 2] */
    int64_t stride;   /* floats between rows of `out` */
    argmax *argmaxes; /* END_ARGMAX: [threads, tokens] */
} product;

/* A stage of a region: called by its threads, each of which returns when all of it is computed. */
void multiply(const product *p, team *all, int stage, int64_t me);

#endif
