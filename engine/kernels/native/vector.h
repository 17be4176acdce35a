/* Vectors of 16 floats, as the compiler has them: one AVX-512 register, two of AVX2, four of NEON or
 * SSE. Included by every kernel. */

#ifndef TIDEMILL_VECTOR_H
#define TIDEMILL_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline, unused))
#define LANES 16

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint16_t vh __attribute__((vector_size(32)));
typedef vf uvf __attribute__((aligned(4), may_alias));
typedef vh uvh __attribute__((aligned(2), may_alias));

INLINE vf splat(float x) { return (vf){} + x; }
INLINE vf pick(vi where, vf yes, vf no) { return (vf)(((vi)yes & where) | ((vi)no & ~where)); }
INLINE vf larger(vf a, vf b) { return pick(a > b, a, b); }

INLINE float sum(vf x) {
    float s = 0;
    for (int i = 0; i < LANES; i++) s += x[i];
    return s;
}

/* e^x for x <= 0: 2^n times a polynomial of degree 5 on [-1/2, 1/2], relative error below 3e-6. */
INLINE vf exponential(vf x) {
    vf t = larger(x, splat(-87.0f)) * 1.44269504f;
    vi n = __builtin_convertvector(t - 0.5f, vi); /* rounds to nearest: t is not positive */
    vf f = t - __builtin_convertvector(n, vf);
    vf p = f * 1.33335581e-3f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147182e-1f;
    p = p * f + 1.0f;
    return p * (vf)((n + 127) << 23);
}

/* Two element types, told apart by a suffix. */
INLINE vf load_f32(const float *p) { return *(const uvf *)p; }
INLINE vf load_bf16(const uint16_t *p) {
    return (vf)(__builtin_convertvector(*(const uvh *)p, vu) << 16);
}

INLINE float store_f32(float x) { return x; }
INLINE uint16_t store_bf16(float x) { /* to nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

INLINE void put_f32(float *p, vf x) { *(uvf *)p = x; }
INLINE void put_bf16(uint16_t *p, vf x) {
    vu bits = (vu)x;
    *(uvh *)p = __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, vh);
}

#endif
