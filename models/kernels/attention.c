/* Causal softmax attention over sequences of any length that lie one behind another, unpadded.
 *
 * Of a sequence's square of scores only the lower triangle is worked out, TALL queries at a time.
 * The backward pass works it out again from each query's log Σ exp (Dao et al. 2022, arXiv
 * 2205.14135, section 3), and holds one sequence's triangle: it fits in a cache.
 */
#include "triangles.h"

/* Tokens [T, heads · d] in rows of q_row, k_row, v_row floats; sequence b's are those from bounds[b]
 * to bounds[b + 1], at most `longest`. Writes out and, for the backward pass, log Σ exp [T, heads].
 * spare has (d + TALL) · (longest + SLAB) floats for each thread. */
void attention(float *out, float *log_sums, const float *q, int64_t q_row, const float *k,
               int64_t k_row, const float *v, int64_t v_row, const int64_t *bounds, int64_t n,
               int64_t longest, int64_t heads, int64_t d, float scale, float *spare, int threads)
{
    int64_t most = longest + SLAB;
    #pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t task = 0; task < n * heads; task++) {
        int64_t begin = bounds[task / heads], length = bounds[task / heads + 1] - begin;
        int64_t head = task % heads, at = head * d, pitch = whole(length, LANES);
        float *columns = spare + omp_get_thread_num() * (d + TALL) * most, *w = columns + d * most;
        turn(columns, pitch, k + begin * k_row + at, k_row, length, d);
        for (int64_t i = 0; i < length; i += TALL) {
            int64_t rows = least(TALL, length - i), end = i + rows;
            const float *x[TALL];
            EACH (a, TALL) x[a] = q + (begin + least(i + a, length - 1)) * q_row + at;
            scores(w, pitch, x, columns, d, end);
            for (int64_t a = 0; a < rows; a++) {
                float *restrict s = w + a * pitch, top = -INFINITY, sum = 0;
                int64_t seen = i + a + 1;
                #pragma omp simd reduction(max:top)
                for (int64_t j = 0; j < seen; j++)
                    top = s[j] > top ? s[j] : top;
                #pragma omp simd reduction(+:sum)
                for (int64_t j = 0; j < seen; j++) {
                    s[j] = exp_((s[j] - top) * scale);
                    sum += s[j];
                }
                float share = 1 / sum;
                for (int64_t j = 0; j < seen; j++)
                    s[j] *= share;
                memset(s + seen, 0, (end - seen) * sizeof *s);
                log_sums[(begin + i + a) * heads + head] = top * scale + logf(sum);
            }
            mixed(out + (begin + i) * heads * d + at, heads * d, w, pitch,
                  v + begin * v_row + at, v_row, rows, end, d);
        }
    }
}

/* The gradients of q, k and v [T, heads · d] from that of out, `grad`, and log_sums.
 * spare has 2 · (d + longest + TALL) · (longest + SLAB) floats for each thread. */
void attention_backward(float *dq, float *dk, float *dv, const float *grad, const float *log_sums,
                        const float *q, int64_t q_row, const float *k, int64_t k_row,
                        const float *v, int64_t v_row, const int64_t *bounds, int64_t n,
                        int64_t longest, int64_t heads, int64_t d, float scale, float *spare,
                        int threads)
{
    int64_t most = longest + SLAB, part = (d + longest + TALL) * most, size = heads * d;
    #pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t task = 0; task < n * heads; task++) {
        int64_t begin = bounds[task / heads], length = bounds[task / heads + 1] - begin;
        int64_t head = task % heads, at = head * d, pitch = whole(length, LANES);
        float *keys = spare + omp_get_thread_num() * 2 * part, *values = keys + d * most;
        float *p = values + d * most, *g = p + (longest + TALL) * most;
        const float *dout = grad + begin * size + at;
        turn(keys, pitch, k + begin * k_row + at, k_row, length, d);
        turn(values, pitch, v + begin * v_row + at, v_row, length, d);
        for (int64_t i = 0; i < length; i += TALL) {
            int64_t rows = least(TALL, length - i), end = i + rows;
            const float *x[TALL], *y[TALL];
            EACH (a, TALL) {
                x[a] = q + (begin + least(i + a, length - 1)) * q_row + at;
                y[a] = dout + least(i + a, length - 1) * size;
            }
            scores(p + i * pitch, pitch, x, keys, d, end);
            scores(g + i * pitch, pitch, y, values, d, end);
            for (int64_t a = 0; a < rows; a++) {
                float *restrict s = p + (i + a) * pitch, *restrict t = g + (i + a) * pitch, sum = 0;
                float log_sum = log_sums[(begin + i + a) * heads + head];
                int64_t seen = i + a + 1;
                #pragma omp simd reduction(+:sum)
                for (int64_t j = 0; j < seen; j++) {
                    s[j] = exp_(s[j] * scale - log_sum);
                    sum += s[j] * t[j];
                }
                for (int64_t j = 0; j < seen; j++)
                    t[j] = s[j] * (t[j] - sum) * scale;
                memset(s + seen, 0, (end - seen) * sizeof *s);
                memset(t + seen, 0, (end - seen) * sizeof *t);
            }
            mixed(dq + (begin + i) * size + at, size, g + i * pitch, pitch,
                  k + begin * k_row + at, k_row, rows, end, d);
        }
        gathered(dk + begin * size + at, size, g, pitch, q + begin * q_row + at, q_row, length, d);
        gathered(dv + begin * size + at, size, p, pitch, dout, size, length, d);
    }
}
