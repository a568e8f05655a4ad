/* The loops over time of gru.py. Rows have nothing to do with each other: a few at a time go through all time
 * steps, and what they need stays in registers and the nearest cache. Names, axes and doubled numbers are those
 * of gru.py; h is H, a multiple of LANES. */

#include <stdint.h>

#if defined(__AVX512F__)
#define LANES 16
#define ROWS 8
#else
#define LANES 8
#define ROWS 4
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

int64_t lanes(void) { return LANES; }

INLINE vec get(const float *from) { return *(const vec *)from; }
INLINE void put(float *to, vec x) { *(vec *)to = x; }

/* 1 / (1 + exp(-x)); exp as in Cephes: 2^k times a polynomial, of an error of 2 ulp. */
INLINE vec sigmoid(vec x) {
    const vec zero = {0}, most = zero + 87.0f;
    x = zero - x;
    ints above = x > most, below = x < -most;
    x = (vec)(((ints)x & ~(above | below)) | ((ints)most & above) | ((ints)(-most) & below));
    vec k = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f;
    x = x - k * 0.693359375f + k * 2.12194440e-4f;
    vec p = zero + 1.9875691500e-4f;
    p = p * x + 1.3981999507e-3f;
    p = p * x + 8.3334519073e-3f;
    p = p * x + 4.1665795894e-2f;
    p = p * x + 1.6666665459e-1f;
    p = p * x + 5.0000001201e-1f;
    p = p * x * x + x + 1.0f;
    ints power = (__builtin_convertvector(k, ints) + 127) << 23;
    return 1.0f / (1.0f + p * (vec)power);
}

/* One time step of n rows: what the gates take of the inputs (n, 3H) and hidden states before (n, H; 0 = zeros)
 * to gates, what the new gate takes (n, H), and hidden states. */
INLINE void forward_rows(const int n, float *gates, float *taken, float *hidden, const float *was,
                         const float *weight, const float *bias_new, int64_t h, int keeps) {
    for (int64_t c = 0; c < h; c += LANES) {
        vec reset[ROWS], update[ROWS], new[ROWS];
        for (int r = 0; r < n; r++) {
            reset[r] = get(gates + r * 3 * h + c);
            update[r] = get(gates + r * 3 * h + h + c);
            new[r] = get(bias_new + c);
        }
        if (was)
            for (int64_t k = 0; k < h; k++) {
                const float *w = weight + k * 3 * h + c;
                vec w_reset = get(w), w_update = get(w + h), w_new = get(w + 2 * h);
                for (int r = 0; r < n; r++) {
                    float x = was[r * h + k];
                    reset[r] += x * w_reset;
                    update[r] += x * w_update;
                    new[r] += x * w_new;
                }
            }
        for (int r = 0; r < n; r++) {
            float *gate = gates + r * 3 * h + c;
            vec z = sigmoid(update[r]), rest = sigmoid(reset[r]), zero = {0};
            vec value = 2.0f * sigmoid(get(gate + 2 * h) + rest * new[r]) - 1.0f;
            vec before = was ? get(was + r * h + c) : zero;
            if (keeps) {
                put(gate, rest);
                put(gate + h, z);
                put(gate + 2 * h, value);
                put(taken + r * h + c, new[r]);
            }
            put(hidden + r * h + c, value + z * (before - value));
        }
    }
}

/* A block of n_steps time steps, of the rows from first to before end.
 *
 * gates:    (R, 3H) what the gates take of the inputs; if keeps, what they are afterwards
 * taken:    (R, H) what the new gate takes of the step before; written if keeps
 * hidden:   (R, H) written; the step before this block lies in front of it
 * weight:   (H, 3H), bias_new: (H)
 * counts:   rows at each time step; before: at the step before this block, 0 = there is none */
void forward(float *gates, float *taken, float *hidden, const float *weight, const float *bias_new,
             const int64_t *counts, int64_t n_steps, int64_t before, int64_t h, int64_t keeps, int64_t first,
             int64_t end) {
    for (int64_t row = first; row < end; row += ROWS) {
        int64_t start = row, last = before;
        for (int64_t t = 0; t < n_steps && counts[t] > row; start += counts[t], last = counts[t], t++) {
            const float *was = last ? hidden + (start - last) * h : 0;
            float *gate = gates + start * 3 * h, *to = hidden + start * h, *kept = taken + start * h;
            int64_t stop = counts[t] < end ? counts[t] : end, n = stop - row < ROWS ? stop - row : ROWS;
            if (n == ROWS)
                forward_rows(ROWS, gate, kept, to, was, weight, bias_new, h, keeps);
            else
                for (int64_t r = 0; r < n; r++)
                    forward_rows(1, gate + r * 3 * h, kept + r * h, to + r * h, was ? was + r * h : 0, weight,
                                 bias_new, h, keeps);
        }
    }
}

/* One time step of n rows, backwards; see backward. */
INLINE void backward_rows(const int n, float *grad, const float *gates, const float *taken, const float *was,
                          float *grad_was, const float *weight, float *by_gate, float *by_new, float *states,
                          int64_t h) {
    for (int r = 0; r < n; r++)
        for (int64_t c = 0; c < h; c += LANES) {
            const float *gate = gates + r * 3 * h + c;
            vec rest = get(gate), z = get(gate + h), value = get(gate + 2 * h), d = get(grad + r * h + c);
            vec zero = {0}, before = was ? get(was + r * h + c) : zero;
            vec d_new = d * (1.0f - z) * (1.0f - value * value), d_taken = d_new * rest;
            float *to = by_gate + r * 3 * h + c;
            put(to, 0.5f * d_taken * get(taken + r * h + c) * (1.0f - rest));
            put(to + h, d * (before - value) * z * (1.0f - z));
            put(to + 2 * h, d_taken);
            put(by_new + r * h + c, d_new);
            put(states + r * h + c, before);
        }
    if (!was)
        return;
    for (int64_t c = 0; c < h; c += 2 * LANES) {
        const int two = c + LANES < h;
        vec first[ROWS], second[ROWS];
        for (int r = 0; r < n; r++) {
            const float *z = gates + r * 3 * h + h + c, *d = grad + r * h + c, *to = grad_was + r * h + c;
            first[r] = get(to) + get(d) * get(z);
            second[r] = first[r];
            if (two)
                second[r] = get(to + LANES) + get(d + LANES) * get(z + LANES);
        }
        for (int64_t k = 0; k < 3 * h; k++) {
            const float *w = weight + k * h + c;
            vec w_first = get(w), w_second = two ? get(w + LANES) : w_first;
            for (int r = 0; r < n; r++) {
                float x = by_gate[r * 3 * h + k];
                first[r] += x * w_first;
                second[r] += x * w_second;
            }
        }
        for (int r = 0; r < n; r++) {
            put(grad_was + r * h + c, first[r]);
            if (two)
                put(grad_was + r * h + c + LANES, second[r]);
        }
    }
}

/* The same block backwards.
 *
 * grad:     (R, H) dL/dh'; what comes of the block is added to the step in front of it
 * gates, taken, hidden, counts, before: see forward
 * weight:   (3H, H)
 * by_gate:  (R, 3H) written: dL by what each gate takes of the step before
 * by_new:   (R, H) written: dL by what the new gate takes of its input
 * states:   (R, H) written: hidden states that each row's step started from */
void backward(float *grad, const float *gates, const float *taken, const float *hidden, const float *weight,
              float *by_gate, float *by_new, float *states, const int64_t *counts, int64_t n_steps,
              int64_t before, int64_t h, int64_t first, int64_t end) {
    int64_t n_rows = 0;
    for (int64_t t = 0; t < n_steps; t++)
        n_rows += counts[t];
    for (int64_t row = first; row < end; row += ROWS) {
        int64_t start = n_rows + row;
        for (int64_t t = n_steps - 1; t >= 0; t--) {
            start -= counts[t];
            int64_t stop = counts[t] < end ? counts[t] : end, n = stop - row < ROWS ? stop - row : ROWS;
            int64_t last = t ? counts[t - 1] : before;
            if (n <= 0)
                continue;
            const float *gate = gates + start * 3 * h, *kept = taken + start * h;
            const float *was = last ? hidden + (start - last) * h : 0;
            float *now = grad + start * h, *to = by_gate + start * 3 * h, *new = by_new + start * h;
            float *from = states + start * h;
            if (n == ROWS)
                backward_rows(ROWS, now, gate, kept, was, now - last * h, weight, to, new, from, h);
            else
                for (int64_t r = 0; r < n; r++)
                    backward_rows(1, now + r * h, gate + r * 3 * h, kept + r * h, was ? was + r * h : 0,
                                  now + (r - last) * h, weight, to + r * 3 * h, new + r * h, from + r * h, h);
        }
    }
}
