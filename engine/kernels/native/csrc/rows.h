/* Rows of activations, encoded for the weight that multiplies them, and the functions that make them.
 *
 * `encode` is called while a row of floats is still in the first-level cache; nothing reads the floats
 * after it. */

#ifndef TIDEMILL_ROWS_H
#define TIDEMILL_ROWS_H

#include "vector.h"

/* Kinds of weights, and of the activations that they multiply. */
enum { KIND_F32, KIND_BF16, KIND_INT8, KIND_GROUPED };

typedef struct {
    int64_t kind, width, group; /* group: inputs that share a scale (GROUPED) */
    void *values;               /* [tokens, width]: float, bf16, uint8 or int8, by kind */
    float *scales;              /* INT8 [tokens]; GROUPED [tokens, width / group] */
    float *sums;                /* GROUPED [tokens, width / group]: of the group's inputs */
} rows;

/* The maximum of |x|. */
INLINE float abs_max(const float *x, int64_t width) {
    vf top = splat(0);
    for (int64_t d = 0; d < width; d += LANES) {
        vf v = load_f32(x + d);
        top = larger(top, larger(v, -v));
    }
    return max_lane(top);
}

/* x = scale (q - 128), q from 1 to 255: unsigned bytes are what VNNI multiplies with signed ones. */
INLINE void encode_int8(const rows *to, int64_t t, const float *x) {
    float scale = abs_max(x, to->width) / 127, inverse = scale > 0 ? 1 / scale : 0;
    uint8_t *q = (uint8_t *)to->values + t * to->width;
    for (int64_t d = 0; d < to->width; d += LANES)
        put_rounded_u8(q + d, load_f32(x + d) * inverse + 128);
    to->scales[t] = scale;
}

/* x = scale q, q from -127 to 127, for each group of inputs. */
INLINE void encode_grouped(const rows *to, int64_t t, const float *x) {
    int64_t groups = to->width / to->group;
    int8_t *q = (int8_t *)to->values + t * to->width;
    for (int64_t g = 0; g < groups; g++, x += to->group, q += to->group) {
        vf total = splat(0);
        float scale = abs_max(x, to->group) / 127, inverse = scale > 0 ? 1 / scale : 0;
        for (int64_t d = 0; d < to->group; d += LANES) {
            vf v = rounded(load_f32(x + d) * inverse);
            total += v;
            put_u8((uint8_t *)q + d, v);
        }
        to->scales[t * groups + g] = scale;
        to->sums[t * groups + g] = scale * sum(total);
    }
}

/* Encode the float row `x` as row `t`. */
INLINE void encode(const rows *to, int64_t t, const float *x) {
    switch (to->kind) {
    case KIND_F32: memcpy((float *)to->values + t * to->width, x, to->width * sizeof *x); break;
    case KIND_BF16:
        for (int64_t d = 0; d < to->width; d += LANES)
            put_bf16((uint16_t *)to->values + t * to->width + d, load_f32(x + d));
        break;
    case KIND_INT8: encode_int8(to, t, x); break;
    default: encode_grouped(to, t, x);
    }
}

/* Fast Walsh-Hadamard transform over runs of `count` vectors, not scaled; see hadamard.py. */
INLINE void hadamard(float *x, int64_t width, int64_t count) {
    for (int64_t half = 1; half < count; half *= 2)
        for (int64_t run = 0; run < width / LANES; run += 2 * half)
            for (int64_t i = run; i < run + half; i++) {
                vf low = load_f32(x + i * LANES), high = load_f32(x + (i + half) * LANES);
                put_f32(x + i * LANES, low + high);
                put_f32(x + (i + half) * LANES, low - high);
            }
}

/* x / sqrt(mean(x^2) + eps) * weight (RMSNorm, Zhang and Sennrich 2019). */
INLINE void rms_norm(const float *x, const float *weight, float *out, int64_t width, float eps) {
    vf squares = splat(0);
    for (int64_t d = 0; d < width; d += LANES) {
        vf v = load_f32(x + d);
        squares += v * v;
    }
    float scale = 1 / sqrtf(sum(squares) / width + eps);
    for (int64_t d = 0; d < width; d += LANES)
        put_f32(out + d, load_f32(x + d) * scale * load_f32(weight + d));
}

#endif
