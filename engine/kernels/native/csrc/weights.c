/* What is done to weights once, when a model is loaded; see weights.py and rounding.py. */

#include "product.h"

typedef struct {
    const float *weight;
    int64_t width;
    int8_t *values;
    float *scales;
    int64_t count;
} rounding;

static void round_channels(const void *job, team *all, int64_t me) {
    const rounding *j = job;
    (void)me;
    FOR_CLAIMED(row, j->count, all, 0) {
        const float *x = j->weight + row * j->width;
        int8_t *q = j->values + row * j->width;
        float scale = abs_max(x, j->width) / 127;
        if (!(scale > 0)) scale = 1;
        for (int64_t d = 0; d < j->width; d += LANES)
            put_u8((uint8_t *)q + d, rounded(load_f32(x + d) / scale));
        j->scales[row] = scale;
    }
}

/* weight [count, width] = scales x values, values from -127 to 127. width: a multiple of 16. */
void quantize_channels(const float *weight, int64_t count, int64_t width, int8_t *values,
                       float *scales, int64_t threads) {
    rounding job = {weight, width, values, scales, count};
    region(round_channels, &job, threads);
}

typedef struct {
    const int8_t *values;
    int64_t outputs, inputs, gated;
    int8_t *panels;
    int32_t *starts;
} packing;

/* The channel of the weight that comes `place`-th: the gates of half a panel, then what they multiply. */
static int64_t channel_at(const packing *j, int64_t place) {
    if (!j->gated) return place;
    int64_t run = place / (2 * LANES), within = place % (2 * LANES);
    return run * LANES + within % LANES + within / LANES * (j->outputs / 2);
}

static void pack_panels(const void *job, team *all, int64_t me) {
    const packing *j = job;
    (void)me;
    FOR_CLAIMED(panel, ceiling(j->outputs, PANEL), all, 0)
    for (int64_t i = 0; i < PANEL; i++) {
        int64_t place = panel * PANEL + i;
        int8_t *to = j->panels + panel * PANEL * j->inputs + i * 4;
        int32_t total = 0;
        if (place < j->outputs) {
            const int8_t *from = j->values + channel_at(j, place) * j->inputs;
            for (int64_t k = 0; k < j->inputs; k++) total += from[k];
            for (int64_t k = 0; k < j->inputs; k += 4) memcpy(to + k * PANEL, from + k, 4);
        } else {
            for (int64_t k = 0; k < j->inputs; k += 4) memset(to + k * PANEL, 0, 4);
        }
        j->starts[place] = -128 * total;
    }
}

/* values [outputs, inputs] -> panels, as product.h has them, and starts [outputs]; both padded to panels.
 * gated: half of the outputs are gates of the others, and half panels of both alternate. */
void pack_int8(const int8_t *values, int64_t outputs, int64_t inputs, int64_t gated, int8_t *panels,
               int32_t *starts, int64_t threads) {
    packing job = {values, outputs, inputs, gated, panels, starts};
    region(pack_panels, &job, threads);
}
