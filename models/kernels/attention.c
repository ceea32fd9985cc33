/* Causal softmax attention over sequences of any length that lie one behind another, unpadded.
 *
 * Of a sequence's square of scores only the lower triangle is worked out, TALL queries at a time.
 * The backward pass works it out again from each query's log Σ exp (Dao et al. 2022, arXiv
 * 2205.14135, section 3), and holds one sequence's triangle: it fits in a cache.
 */
#include "tiles.h"
#ifdef _OPENMP
#include <omp.h>
#else
#define omp_get_thread_num() 0
#endif

INLINE int64_t whole(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

/* columns[l, j] = x[j, l] for n rows of d; what is beyond n is a copy of the last row */
static void turn(float *columns, int64_t pitch, const float *x, int64_t x_row, int64_t n, int64_t d)
{
    for (int64_t j = 0; j < n; j += LANES)
        for (int64_t l = 0; l < d; l += LANES) {
            vec v[LANES];
            EACH (r, LANES) {
                const float *at = x + least(j + r, n - 1) * x_row + l;
                v[r] = l + LANES <= d ? load(at) : load_first(at, d - l);
            }
            transpose(v);
            for (int64_t r = 0; r < least(LANES, d - l); r++)
                *(loose *)(columns + (l + r) * pitch + j) = v[r];
        }
}

/* out[a, j] = x[a] · columns[:, j] for TALL rows and j < end (some more are written) */
static void scores(float *out, int64_t pitch, const float *const *x, const float *columns,
                   int64_t d, int64_t end)
{
    for (int64_t j = 0; j < end; j += SLAB) {
        int64_t n = least(ACROSS, (end - j + LANES - 1) / LANES);
        vec sum[TALL * ACROSS];
        EACH (t, TALL * ACROSS) sum[t] = (vec){0};
        if (n == 3)
            weighed_tile(sum, x, columns + j, NULL, pitch, 0, d, 3);
        else if (n == 2)
            weighed_tile(sum, x, columns + j, NULL, pitch, 0, d, 2);
        else
            weighed_tile(sum, x, columns + j, NULL, pitch, 0, d, 1);
        for (int64_t a = 0; a < TALL; a++)
            memcpy(out + a * pitch + j, sum + a * ACROSS, n * LANES * sizeof *out);
    }
}

/* out[a] = Σ_j w[a, j] · x[j] over j < end, for `rows` of TALL rows */
static void mixed(float *out, int64_t out_row, const float *w, int64_t pitch, const float *x,
                  int64_t x_row, int64_t rows, int64_t end, int64_t d)
{
    const float *p[TALL];
    EACH (a, TALL) p[a] = w + a * pitch;
    for (int64_t number = 0; number < slabs(d); number++) {
        struct slab s = slab(d, number);
        vec sum[TALL * ACROSS];
        EACH (t, TALL * ACROSS) sum[t] = (vec){0};
        if (s.n == 3)
            weighed_tile(sum, p, x + s.at, NULL, x_row, 0, end, 3);
        else if (s.n == 2)
            weighed_tile(sum, p, x + s.at, NULL, x_row, 0, end, 2);
        else
            weighed_tile(sum, p, x + s.at, NULL, x_row, 0, end, 1);
        for (int64_t a = 0; a < rows; a++)
            memcpy(out + a * out_row + s.at + s.skip, (float *)(sum + a * ACROSS) + s.skip,
                   (s.n * LANES - s.skip) * sizeof *out);
    }
}

/* out[j] = Σ_i w[i, j] · x[i] over i ≥ j, for n columns of w, a lower triangle */
static void gathered(float *out, int64_t out_row, const float *w, int64_t pitch, const float *x,
                     int64_t x_row, int64_t n, int64_t d)
{
    for (int64_t j = 0; j < n; j += TALL) {
        int64_t column[TALL];
        EACH (a, TALL) column[a] = least(j + a, n - 1);
        for (int64_t number = 0; number < slabs(d); number++) {
            struct slab s = slab(d, number);
            const float *from = w + j * pitch, *with = x + j * x_row + s.at;
            vec sum[TALL * ACROSS];
            EACH (t, TALL * ACROSS) sum[t] = (vec){0};
            if (s.n == 3)
                gradient_tile(sum, from, pitch, column, with, x_row, n - j, 3);
            else if (s.n == 2)
                gradient_tile(sum, from, pitch, column, with, x_row, n - j, 2);
            else
                gradient_tile(sum, from, pitch, column, with, x_row, n - j, 1);
            for (int64_t a = 0; a < least(TALL, n - j); a++)
                memcpy(out + (j + a) * out_row + s.at + s.skip,
                       (float *)(sum + a * ACROSS) + s.skip, (s.n * LANES - s.skip) * sizeof *out);
        }
    }
}

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
