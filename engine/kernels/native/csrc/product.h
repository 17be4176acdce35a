/* Products of rows with a weight, x weight^T + bias, and what is done with them at once.
 *
 * Weights lie in panels of 64 output channels, with as many inputs side by side as one instruction
 * takes of a channel: [panel][input / n][channel][n], n = 1, 2 and 4 for float, bf16 and int8.
 * A tile is up to 6 rows by one panel; its sums stay in registers. */

#ifndef TIDEMILL_PRODUCT_H
#define TIDEMILL_PRODUCT_H

#include "rows.h"
#include "team.h"

#define PANEL 64 /* output channels of a panel: four registers of sums a row */
#define HALF 32
#define ROWS 6   /* rows of a tile: 6 x 4 sums, 4 weights and an input are 29 of 32 registers */
#define BLOCK 96 /* rows that share a panel while it is in the cache */

typedef struct {
    int64_t kind, inputs, outputs, group, bits;
    const void *panels;
    const float *scales; /* INT8 [outputs]; GROUPED [panel][half][group][32]; padded to panels */
    const float *lows;   /* GROUPED, as `scales`: what a stored 0 stands for */
    const int32_t *starts; /* INT8 [outputs]: -128 times the sum of each channel's values */
    const float *bias;   /* [outputs], padded, or NULL */
} weight;

/* What becomes of y = x weight^T + bias. */
enum {
    END_PUT,  /* out = y */
    END_ADD,  /* out += y */
    END_GATE, /* channels are 16 gates, 16 others, and so on: out = silu(gate) other, half as wide */
    END_BEST  /* out = y unless it is NULL; and each row's greatest channel is remembered */
};

typedef struct {
    float value;
    int32_t channel;
} best;

typedef struct {
    const rows *x;
    const weight *w;
    int64_t tokens, end;
    float *out;     /* [tokens, outputs], of END_GATE [tokens, outputs / 2] */
    int64_t stride; /* floats between rows of `out` */
    best *bests;    /* END_BEST: [threads, tokens] */
} product;

/* All threads of a region together; `stage` is a counter of the team that nothing else uses. */
void multiply(const product *p, team *all, int stage, int64_t me);

#endif
