/* The passes between products for one element type; included by elementwise.c once a type.
 *
 * Expects: T (the element type), FN(name) (adds the type to a name), and vector.h.
 */

/* residual += update (if any); out = residual / sqrt(mean(residual^2) + eps) * weight. */
void FN(add_rms_norm)(const T *update, float *residual, const T *weight, T *out, int64_t tokens,
                      int64_t width, float eps, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads) if (tokens * width > SERIAL)
    for (int64_t t = 0; t < tokens; t++) {
        float *row = residual + t * width;
        vf squares = splat(0);
        for (int64_t d = 0; d < width; d += LANES) {
            vf x = load_f32(row + d);
            if (update) {
                x += FN(load)(update + t * width + d);
                put_f32(row + d, x);
            }
            squares += x * x;
        }
        float scale = 1 / sqrtf(sum(squares) / width + eps);
        for (int64_t d = 0; d < width; d += LANES)
            FN(put)(out + t * width + d, load_f32(row + d) * scale * FN(load)(weight + d));
    }
}

/* out = silu(gate) * up, of rows [gate | up] of 2 width. */
void FN(silu_and_mul)(const T *gate_up, T *out, int64_t tokens, int64_t width, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads) if (tokens * width > SERIAL)
    for (int64_t t = 0; t < tokens; t++) {
        const T *gate = gate_up + t * 2 * width, *up = gate + width;
        for (int64_t d = 0; d < width; d += LANES) {
            vf x = FN(load)(gate + d);
            vf e = exponential(pick(x < 0, x, -x)), one = splat(1);
            vf sigmoid = pick(x < 0, e, one) / (one + e);
            FN(put)(out + t * width + d, x * sigmoid * FN(load)(up + d));
        }
    }
}

/* Rotate heads of `width`; the first half of each row of sines is negated. */
void FN(apply_rope)(const T *heads, int64_t stride, const float *cosines, const float *sines, T *out,
                    int64_t tokens, int64_t count, int64_t width, int64_t threads) {
    int64_t half = width / 2;
#pragma omp parallel for schedule(static) num_threads((int)threads) if (tokens * count * width > SERIAL)
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t h = 0; h < count; h++) {
            const T *in = heads + t * stride + h * width;
            T *to = out + (t * count + h) * width;
            for (int64_t d = 0; d < half; d += LANES) {
                vf a = FN(load)(in + d), b = FN(load)(in + half + d);
                const float *c = cosines + t * width + d, *s = sines + t * width + d;
                FN(put)(to + d, a * load_f32(c) + b * load_f32(s));
                FN(put)(to + half + d, b * load_f32(c + half) + a * load_f32(s + half));
            }
        }
}

#undef T
#undef FN
