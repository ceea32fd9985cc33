/* What a GRU4Rec step on a CPU spends its time on beside matrix products, each in one pass.
 *
 * Written so that compilers vectorise every loop over columns: no branches, no calls, restrict.
 * library.py says what the arguments are; models/parts/gru4rec/adagrad.py and losses.py have
 * the same sums in torch, and the formulas.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "adagrad.h"
#include "tiles.h"
#ifdef _OPENMP
#include <omp.h>
#else
#define omp_get_thread_num() 0
#endif

#define AHEAD 4       /* rows that are on their way while one is worked on */
#define LINE 16       /* floats that come together */
#define BLOCK 4096    /* numbers that a thread takes at once */
#define TINY 1e-24f   /* what the reference adds before each logarithm */

static inline void fetch(const float *row, int64_t d)
{
    for (int64_t j = 0; j < d; j += LINE)
        __builtin_prefetch(row + j, 1, 3);
}

void gather(float *restrict out, const float *restrict table, const int64_t *restrict rows,
            int64_t k, int64_t d, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < k; i++) {
        if (i + AHEAD < k)
            fetch(table + rows[i + AHEAD] * d, d);
        memcpy(out + i * d, table + rows[i] * d, d * sizeof(float));
    }
}

void adagrad_rows(float *weight, float *squares, float *velocity, const float *grad,
                  const int64_t *rows, int64_t k, int64_t d, float lr, float mu, float keep,
                  int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < k; i++) {
        if (i + AHEAD < k) {
            int64_t next = rows[i + AHEAD] * d;
            fetch(weight + next, d);
            fetch(squares + next, d);
            if (velocity)
                fetch(velocity + next, d);
        }
        int64_t at = rows[i] * d;
        move(weight + at, squares + at, velocity ? velocity + at : NULL, grad + i * d, d, lr, mu,
             keep);
    }
}

void adagrad(float *weight, float *squares, float *velocity, const float *grad, int64_t n,
             float lr, float mu, float keep, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t at = 0; at < n; at += BLOCK)
        move(weight + at, squares + at, velocity ? velocity + at : NULL, grad + at,
             n - at < BLOCK ? n - at : BLOCK, lr, mu, keep);
}

/* One row at a time, which stays in the first-level cache. spare has 2·u floats per thread. */
void bpr_max(float *restrict scores, const int64_t *restrict own, const float *restrict log_counts,
             const float *restrict others, float *restrict losses, float *restrict spare, int64_t m,
             int64_t u, float bpreg, int elu, float scale, float alpha, int threads)
{
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < m; i++) {
        float *restrict r = scores + i * u;
        float *restrict s = spare + 2 * u * omp_get_thread_num(), *restrict q = s + u;
        float top = -INFINITY, sum = 0, p = 0, p_square = 0, mean = 0, square = 0;
        if (elu)
            for (int64_t j = 0; j < u; j++) {
                /* what is not a number stays none: a training that diverges must be seen to */
                float below = alpha * (exp_(r[j] > 0 ? 0 : r[j]) - 1);
                r[j] = scale * (r[j] > 0 ? r[j] : below);
            }
        for (int64_t j = 0; j < u; j++)
            s[j] = r[j] + log_counts[j];
        s[own[i]] += others[i];
        #pragma omp simd reduction(max:top)
        for (int64_t j = 0; j < u; j++)
            top = s[j] > top ? s[j] : top;
        #pragma omp simd reduction(+:sum)
        for (int64_t j = 0; j < u; j++) {
            s[j] = exp_(s[j] - top);
            sum += s[j];
        }
        float share = 1 / sum, target = r[own[i]];
        #pragma omp simd reduction(+:p, p_square, mean, square)
        for (int64_t j = 0; j < u; j++) {
            float w = s[j] * share;
            /* σ(x) from e^−|x|, so that nothing overflows */
            float x = target - r[j];
            float e = exp_(x > 0 ? -x : x);
            float above = (x > 0 ? 1.0f : e) / (1 + e);
            float weighed = w * above;
            s[j] = w;
            q[j] = weighed * above;
            p += weighed;
            p_square += q[j];
            mean += w * r[j];
            square += w * r[j] * r[j];
        }
        float likelihood = p + TINY;
        float a = p / likelihood - bpreg * square, minus = -1 / likelihood;
        for (int64_t j = 0; j < u; j++)
            q[j] = q[j] * minus + s[j] * (bpreg * (r[j] * r[j] + 2 * r[j]) + a);
        q[own[i]] += (p_square - p) / likelihood;
        if (elu)
            for (int64_t j = 0; j < u; j++)
                r[j] = q[j] * (r[j] > 0 ? scale : r[j] + scale * alpha);
        else
            memcpy(r, q, u * sizeof(float));
        losses[i] = -logf(likelihood) + bpreg * square;
    }
}
