/* What is done to weights once, when a model is loaded: rotated, transformed, rounded and laid out.
 *
 * rotate_rows multiplies rows by a product of a Hadamard matrix and a small one; see rotate.py. A row of
 * width `odd` x `power` is a table of `odd` lines. The Hadamard matrix is applied along the lines, the
 * small matrix across them. */

#include "product.h"

#define MAX_ODD 512

/* One step within a vector: lanes that differ only in the bit `half` become their sum and difference. */
INLINE vf pairs(vf x, const int half) {
    vi other, sign;
    UNROLL for (int i = 0; i < LANES; i++) {
        other[i] = i ^ half;
        sign[i] = i & half ? (int32_t)0x80000000 : 0;
    }
    return __builtin_shuffle(x, other) + (vf)((vi)x ^ sign);
}

/* Fast Walsh-Hadamard transform of a line, times `scale`. */
INLINE void hadamard_line(float *x, int64_t power, float scale) {
    for (int64_t i = 0; i < power; i += LANES) {
        vf v = load_f32(x + i) * scale;
        put_f32(x + i, pairs(pairs(pairs(pairs(v, 1), 2), 4), 8));
    }
    for (int64_t half = LANES; half < power; half *= 2)
        for (int64_t run = 0; run < power; run += 2 * half)
            for (int64_t i = run; i < run + half; i += LANES) {
                vf low = load_f32(x + i), high = load_f32(x + i + half);
                put_f32(x + i, low + high);
                put_f32(x + i + half, low - high);
            }
}

typedef struct {
    float *rows;
    int64_t count, odd, power;
    const float *by, *matrix;
} rotation_job;

static void rotate_row(const rotation_job *j, int64_t row) {
    int64_t odd = j->odd, power = j->power, width = odd * power;
    float scale = 1 / sqrtf(power), *x = j->rows + row * width;
    for (int64_t d = 0; d < width; d += LANES)
        put_f32(x + d, load_f32(x + d) * load_f32(j->by + d));
    for (int64_t line = 0; line < odd; line++) hadamard_line(x + line * power, power, scale);
    if (odd == 1) return;
    for (int64_t d = 0; d < power; d += LANES) {
        vf column[MAX_ODD];
        for (int64_t k = 0; k < odd; k++) column[k] = load_f32(x + k * power + d);
        for (int64_t i = 0; i < odd; i++) {
            vf y = splat(0);
            for (int64_t k = 0; k < odd; k++) y += j->matrix[i * odd + k] * column[k];
            put_f32(x + i * power + d, y);
        }
    }
}

static void run_rotation(const void *job, team *all, int64_t me) {
    const rotation_job *j = job;
    (void)me;
    FOR_CLAIMED(row, j->count, all, 0) rotate_row(j, row);
}

/* rows [count, odd * power], in place: each times `by` [odd * power], then rotated.
 * matrix [odd, odd]. power: a power of two, at least 16. */
void rotate_rows(float *rows, int64_t count, int64_t odd, int64_t power, const float *by,
                 const float *matrix, int64_t threads) {
    rotation_job job = {rows, count, odd, power, by, matrix};
    region(run_rotation, &job, threads);
}

typedef struct {
    float *rows;
    int64_t count, width, run;
    float scale;
} transform;

static void run_transform(const void *job, team *all, int64_t me) {
    const transform *j = job;
    (void)me;
    FOR_CLAIMED(row, j->count, all, 0) {
        float *x = j->rows + row * j->width;
        hadamard(x, j->width, j->run);
        for (int64_t d = 0; d < j->width; d += LANES) put_f32(x + d, load_f32(x + d) * j->scale);
    }
}

/* rows [count, width], in place: `hadamard` of rows.h with `run` vectors, times `scale`. */
void hadamard_rows(float *rows, int64_t count, int64_t width, int64_t run, float scale,
                   int64_t threads) {
    transform job = {rows, count, width, run, scale};
    region(run_transform, &job, threads);
}

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
