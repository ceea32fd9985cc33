/* Tiles of matrix products: as large as the registers hold.
 *
 * The last vector of a row begins earlier where its width does not divide it, and the last row of a
 * tile is the one before where there is none: what is worked out twice is written once. Rows have
 * LANES floats at least. Every sum runs in the same order however many rows or threads there are.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define TALL 8 /* a tile's rows … */
#elif defined(__AVX__)
#define LANES 8
#define TALL 4
#else
#define LANES 4
#define TALL 4
#endif
#define ACROSS 3 /* … by vectors of columns */
#define SLAB (ACROSS * LANES)
#define NEAR 128 /* rows that are gone over again and again while they are in the cache */

typedef float vec __attribute__((vector_size(4 * LANES)));
/* as it lies in memory: at any address */
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)
#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *at) { return *(const loose *)at; }

/* n floats, zeros behind them */
INLINE vec load_first(const float *at, int64_t n)
{
    float all[LANES] = {0};
    memcpy(all, at, n * sizeof(float));
    return load(all);
}

/* the last n floats of a row that ends at end, zeros before them */
INLINE vec load_last(const float *end, int64_t n)
{
    float all[LANES] = {0};
    memcpy(all + LANES - n, end - n, n * sizeof(float));
    return load(all);
}

/* Lanes of a and b: those without the bit w in their number, or (from w on) those with it; runs of w
 * in turns from a and b. */
#if defined(__clang__) || __GNUC__ >= 12
#define MIX(a, b, w, from) __builtin_shufflevector(a, b, LIST_##w(from))
#else
typedef int32_t lanes __attribute__((vector_size(4 * LANES)));
#define MIX(a, b, w, from) __builtin_shuffle(a, b, (lanes){LIST_##w(from)})
#endif
#define RUN_1(o) (o)
#define RUN_2(o) (o), (o) + 1
#define RUN_4(o) RUN_2(o), RUN_2((o) + 2)
#define RUN_8(o) RUN_4(o), RUN_4((o) + 4)
#define TURN(w, o) RUN_##w(o), RUN_##w((o) + LANES)
#define TURNS_2(w, o) TURN(w, o), TURN(w, (o) + 2 * w)
#define TURNS_4(w, o) TURNS_2(w, o), TURNS_2(w, (o) + 4 * w)
#if LANES == 16
#define LIST_8(o) TURN(8, o)
#define LIST_4(o) TURNS_2(4, o)
#define LIST_2(o) TURNS_4(2, o)
#define LIST_1(o) TURNS_4(1, o), TURNS_4(1, (o) + 8)
#elif LANES == 8
#define LIST_4(o) TURN(4, o)
#define LIST_2(o) TURNS_2(2, o)
#define LIST_1(o) TURNS_4(1, o)
#else
#define LIST_2(o) TURN(2, o)
#define LIST_1(o) TURNS_2(1, o)
#endif
#define SWAP(w)                                                                                   \
    EACH (i, LANES)                                                                               \
        if (!(i & w)) {                                                                           \
            vec low = MIX(v[i], v[i + w], w, 0), high = MIX(v[i], v[i + w], w, w);                \
            v[i] = low;                                                                           \
            v[i + w] = high;                                                                      \
        }

/* rows become columns */
INLINE void transpose(vec v[LANES])
{
#if LANES >= 16
    SWAP(8)
#endif
#if LANES >= 8
    SWAP(4)
#endif
    SWAP(2)
    SWAP(1)
}

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE int64_t row_of(const int64_t *rows, int64_t i) { return rows ? rows[i] : i; }

/* e^x to about 1 ulp for x ≤ 0 (below −87: 0): 2^n · e^r, |r| ≤ ln2/2, Cephes' polynomial. */
INLINE float exp_(float x)
{
    float low = x < -87.0f ? 0.0f : 1.0f;
    x = x < -87.0f ? -87.0f : x;
    float n = nearbyintf(x * 1.44269504f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return low * p * power;
}

/* Columns [at + skip, at + n·LANES) of a row of k: up to ACROSS vectors, and last, where LANES
 * does not divide k, one that begins before the rest. */
struct slab {
    int64_t at;
    int n, skip;
};

INLINE int64_t slabs(int64_t k)
{
    return (k / LANES + ACROSS - 1) / ACROSS + (k % LANES != 0);
}

INLINE struct slab slab(int64_t k, int64_t number)
{
    int64_t at = number * ACROSS * LANES, left = k / LANES - number * ACROSS;
    if (left > 0)
        return (struct slab){at, left < ACROSS ? (int)left : ACROSS, 0};
    return (struct slab){k - LANES, 1, (int)(LANES - k % LANES)};
}

/* sum[a, b] += Σ_i d[a][i] · row rows[i] of w, for TALL rows and n vectors of columns */
INLINE void weighed_tile(vec *sum, const float *const *d, const float *w, const int64_t *rows,
                         int64_t k, int64_t begin, int64_t end, int n)
{
    for (int64_t i = begin; i < end; i++) {
        const float *at = w + row_of(rows, i) * k;
        vec v[ACROSS];
        EACH (b, n) v[b] = load(at + b * LANES);
        EACH (a, TALL) EACH (b, n) sum[a * ACROSS + b] += d[a][i] * v[b];
    }
}

/* sum[a, b] += Σ_j d[j, column[a]] · x[j], for n vectors of columns of x */
INLINE void gradient_tile(vec *sum, const float *d, int64_t d_row, const int64_t *column,
                          const float *x, int64_t x_row, int64_t m, int n)
{
    for (int64_t j = 0; j < m; j++) {
        vec v[ACROSS];
        EACH (b, n) v[b] = load(x + j * x_row + b * LANES);
        EACH (a, TALL) EACH (b, n) sum[a * ACROSS + b] += d[j * d_row + column[a]] * v[b];
    }
}
