/* A sequence's lower triangle of scores: products that stop at the diagonal.
 *
 * Shared by attention with a softmax and without; rows have LANES floats at least (tiles.h).
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
