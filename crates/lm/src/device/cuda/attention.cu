// Causal attention over sequences that lie end to end, by tiles (Dao et al. 2022): scores are never in memory. A tile is its
// begin and end, and the begin and end of its sequence. Blocks have 16 by 16 threads; thread (tx, ty) has the rows ty + 16 i of
// every matrix of a tile, and the columns tx + 16 j of scores.

#define SIDE 16
// Rows of a tile of queries or of keys: as many as registers and shared memory bear.
#define TILE (HEAD_DIM <= 64 ? 64 : 32)
// Numbers of a row in shared memory, of which four are read at a time: rows begin at whole fours, and sixteen that follow each
// other begin in different banks.
#define WIDTH ((HEAD_DIM + 3) / 4 * 4)
#define PITCH (WIDTH % 8 == 4 ? WIDTH : WIDTH + 4)
// Of a matrix of HEAD_DIM columns a thread has so many that follow each other, in so many places.
#define RUN (WIDTH >= 64 ? 4 : WIDTH >= 32 ? 2 : 1)
#define RUNS ((WIDTH + SIDE * RUN - 1) / (SIDE * RUN))
#define COLUMNS (RUN * RUNS)
#define SCORES (TILE + 4)
// What may be read behind the last row.
#define PAD 64
// A short loop whose counter chooses a register.
#define EACH(at, count) _Pragma("unroll") for (int at = 0; at < count; at++)

#ifdef EMULATED
alignas(16) static float room[1 << 16];
#else
extern __shared__ __align__(16) float room[];
#endif

// A tile of rows from `begin` on of a matrix of HEAD_DIM columns; zeros from row `end` on, and behind the last column.
__device__ void load_rows(float* to, const float* from, u64 step, int begin, int end) {
    for (int at = threadIdx.x; at < TILE * WIDTH; at += THREADS) {
        int row = at / WIDTH, column = at % WIDTH;
        bool there = begin + row < end && column < HEAD_DIM;
        to[row * PITCH + column] = there ? from[(u64)(begin + row) * step + column] : 0.0f;
    }
}

// Sum and maximum over the 16 threads that share rows.
__device__ float side_sum(float x) {
    for (int step = 8; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

__device__ float side_max(float x) {
    for (int step = 8; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

__device__ bool sees(int query, int key, int end, int window) {
    return query < end && key <= query && query - key < window;
}

// products[i][j] = a row of `a` times a row of `b`.
template <int A, int B>
__device__ void products(const float* a, const float* b, float (&out)[A][B]) {
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    EACH(i, A) EACH(j, B) out[i][j] = 0.0f;
    #pragma unroll 4
    for (int at = 0; at < WIDTH; at += 4) {
        float4 left[A], right[B];
        EACH(i, A) left[i] = *(const float4*)(a + (ty + SIDE * i) * PITCH + at);
        EACH(j, B) right[j] = *(const float4*)(b + (tx + SIDE * j) * PITCH + at);
        EACH(i, A) EACH(j, B) {
            out[i][j] += left[i].x * right[j].x;
            out[i][j] += left[i].y * right[j].y;
            out[i][j] += left[i].z * right[j].z;
            out[i][j] += left[i].w * right[j].w;
        }
    }
}

// Which column of a matrix of HEAD_DIM columns is a thread's number `j`.
__device__ int column_of(int j) {
    return threadIdx.x % SIDE * RUN + j / RUN * SIDE * RUN + j % RUN;
}

// A thread's columns of a row. Behind the last one stands what belongs to the next row; it is not written.
template <int LENGTH> struct Run;
template <> struct Run<1> {
    static __device__ void load(const float* from, float* to) { to[0] = from[0]; }
};
template <> struct Run<2> {
    static __device__ void load(const float* from, float* to) {
        float2 value = *(const float2*)from;
        to[0] = value.x; to[1] = value.y;
    }
};
template <> struct Run<4> {
    static __device__ void load(const float* from, float* to) {
        float4 value = *(const float4*)from;
        to[0] = value.x; to[1] = value.y; to[2] = value.z; to[3] = value.w;
    }
};

__device__ void own_columns(const float* row, float (&to)[COLUMNS]) {
    EACH(run, RUNS) Run<RUN>::load(row + column_of(run * RUN), to + run * RUN);
}

// out += weights * rows.
template <int A>
__device__ void weigh(const float* weights, const float* rows, float (&out)[A][COLUMNS]) {
    int ty = threadIdx.x / SIDE;
    for (int at = 0; at < TILE; at += 4) {
        float weight[A][4];
        EACH(i, A) Run<4>::load(weights + (ty + SIDE * i) * SCORES + at, weight[i]);
        EACH(next, 4) {
            float row[COLUMNS];
            own_columns(rows + (at + next) * PITCH, row);
            EACH(i, A) EACH(j, COLUMNS) out[i][j] += weight[i][next] * row[j];
        }
    }
}

// out += the transposed weights * rows.
template <int A>
__device__ void weigh_back(const float* weights, const float* rows, float (&out)[A][COLUMNS]) {
    int ty = threadIdx.x / SIDE;
    #pragma unroll 4
    for (int at = 0; at < TILE; at++) {
        float weight[A], row[COLUMNS];
        EACH(i, A) weight[i] = weights[at * SCORES + ty + SIDE * i];
        own_columns(rows + at * PITCH, row);
        EACH(i, A) EACH(j, COLUMNS) out[i][j] += weight[i] * row[j];
    }
}

template <int A>
__device__ void store(float* to, u64 step, int begin, int end, const float (&out)[A][COLUMNS], float scale) {
    int ty = threadIdx.x / SIDE;
    EACH(i, A) {
        int row = begin + ty + SIDE * i;
        EACH(j, COLUMNS) {
            int column = column_of(j);
            if (row < end && column < HEAD_DIM) to[(u64)row * step + column] = out[i][j] * scale;
        }
    }
}

// A block a tile of TILE queries and a head.
extern "C" __global__ void attend(
    const float* qkv, const u32* tiles, int rows, int heads, int kv_heads, int window, float scale,
    float* context, float* logsums
) {
    const int A = TILE / SIDE, B = TILE / SIDE;
    const u32* tile = tiles + 4 * blockIdx.x;
    int begin = tile[0], end = tile[1], head = blockIdx.y, kv = head / (heads / kv_heads);
    int first = max((int)tile[2], begin + 1 - window);
    u64 step = (u64)(heads + 2 * kv_heads) * HEAD_DIM;
    float *q = room, *k = q + TILE * PITCH, *p = k + TILE * PITCH + PAD;
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    float sums[A][COLUMNS] = {}, largest[A], whole[A];
    EACH(i, A) { largest[i] = -INFINITE; whole[i] = 0.0f; }
    load_rows(q, qkv + head * HEAD_DIM, step, begin, end);
    for (int from = first; from < end; from += TILE) {
        __syncthreads();
        load_rows(k, qkv + (heads + kv) * HEAD_DIM, step, from, end);
        __syncthreads();
        float s[A][B];
        products<A, B>(q, k, s);
        EACH(i, A) {
            int query = begin + ty + SIDE * i;
            float most = -INFINITE;
            EACH(j, B) {
                bool seen = sees(query, from + tx + SIDE * j, end, window);
                s[i][j] = seen ? s[i][j] * scale : -INFINITE;
                most = fmaxf(most, s[i][j]);
            }
            most = fmaxf(largest[i], side_max(most));
            // Nothing seen so far: all stays as it is.
            float kept = most == -INFINITE ? 1.0f : expf(largest[i] - most);
            float sum = 0.0f;
            EACH(j, B) {
                float value = s[i][j] == -INFINITE ? 0.0f : expf(s[i][j] - most);
                p[(ty + SIDE * i) * SCORES + tx + SIDE * j] = value;
                sum += value;
            }
            whole[i] = whole[i] * kept + side_sum(sum);
            largest[i] = most;
            EACH(j, COLUMNS) sums[i][j] *= kept;
        }
        __syncthreads();
        load_rows(k, qkv + (heads + kv_heads + kv) * HEAD_DIM, step, from, end);
        __syncthreads();
        weigh<A>(p, k, sums);
    }
    EACH(i, A) {
        int row = begin + ty + SIDE * i;
        if (row < end && tx == 0) logsums[(u64)head * rows + row] = largest[i] + logf(whole[i]);
        EACH(j, COLUMNS) sums[i][j] /= whole[i];
    }
    store<A>(context + head * HEAD_DIM, (u64)heads * HEAD_DIM, begin, end, sums, 1.0f);
}

// The inner product of each head's result and its gradient, [heads, rows]; a warp a head, 8 a block.
extern "C" __global__ void attend_shared(const float* context, const float* d_context, int rows, int heads, float* shared) {
    int item = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (item >= rows * heads) return;
    u64 at = (u64)item * HEAD_DIM;
    float dot = 0.0f;
    for (int i = lane; i < HEAD_DIM; i += 32) dot += context[at + i] * d_context[at + i];
    dot = warp_sum(dot);
    if (lane == 0) shared[(u64)(item % heads) * rows + item / heads] = dot;
}

// Probabilities, and the gradient of the scores, of a tile of queries and one of keys.
__device__ void tile_gradient(
    const float* q, const float* d, const float* k, const float* v, const float* logsums, const float* shared,
    int begin, int end, int from, int window, float scale, float* p, float* ds
) {
    const int N = TILE / SIDE;
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    float s[N][N], dp[N][N];
    products<N, N>(q, k, s);
    products<N, N>(d, v, dp);
    EACH(i, N) {
        int query = begin + ty + SIDE * i;
        EACH(j, N) {
            int at = (ty + SIDE * i) * SCORES + tx + SIDE * j;
            bool seen = sees(query, from + tx + SIDE * j, end, window);
            float probability = seen ? expf(s[i][j] * scale - logsums[query]) : 0.0f;
            p[at] = probability;
            ds[at] = seen ? probability * (dp[i][j] - shared[query]) : 0.0f;
        }
    }
}

// The gradient of the queries; a block a tile of TILE queries and a head.
extern "C" __global__ void attend_queries(
    const float* qkv, const u32* tiles, int rows, int heads, int kv_heads, int window, float scale,
    const float* logsums, const float* shared, const float* d_context, float* d_qkv
) {
    const int N = TILE / SIDE;
    const u32* tile = tiles + 4 * blockIdx.x;
    int begin = tile[0], end = tile[1], head = blockIdx.y, kv = head / (heads / kv_heads);
    int first = max((int)tile[2], begin + 1 - window);
    u64 step = (u64)(heads + 2 * kv_heads) * HEAD_DIM;
    float *q = room, *d = q + TILE * PITCH, *k = d + TILE * PITCH, *v = k + TILE * PITCH + PAD;
    float *p = v + TILE * PITCH + PAD, *ds = p + TILE * SCORES;
    float sums[N][COLUMNS] = {};
    load_rows(q, qkv + head * HEAD_DIM, step, begin, end);
    load_rows(d, d_context + head * HEAD_DIM, (u64)heads * HEAD_DIM, begin, end);
    for (int from = first; from < end; from += TILE) {
        __syncthreads();
        load_rows(k, qkv + (heads + kv) * HEAD_DIM, step, from, end);
        load_rows(v, qkv + (heads + kv_heads + kv) * HEAD_DIM, step, from, end);
        __syncthreads();
        const float *ls = logsums + (u64)head * rows, *sh = shared + (u64)head * rows;
        tile_gradient(q, d, k, v, ls, sh, begin, end, from, window, scale, p, ds);
        __syncthreads();
        weigh<N>(ds, k, sums);
    }
    store<N>(d_qkv + head * HEAD_DIM, step, begin, end, sums, scale);
}

// The gradient of keys and values; a block a tile of TILE keys and a head of them.
extern "C" __global__ void attend_keys(
    const float* qkv, const u32* tiles, int rows, int heads, int kv_heads, int window, float scale,
    const float* logsums, const float* shared, const float* d_context, float* d_qkv
) {
    const int N = TILE / SIDE;
    const u32* tile = tiles + 4 * blockIdx.x;
    int begin = tile[0], end = tile[1], kv = blockIdx.y, group = heads / kv_heads;
    // The last key is seen by so many queries from itself on; `window` is small enough not to wrap.
    int last = min((int)tile[3], end - 1 + window);
    u64 step = (u64)(heads + 2 * kv_heads) * HEAD_DIM;
    float *q = room, *d = q + TILE * PITCH + PAD, *k = d + TILE * PITCH + PAD, *v = k + TILE * PITCH;
    float *p = v + TILE * PITCH, *ds = p + TILE * SCORES;
    float d_keys[N][COLUMNS] = {}, d_values[N][COLUMNS] = {};
    load_rows(k, qkv + (heads + kv) * HEAD_DIM, step, begin, end);
    load_rows(v, qkv + (heads + kv_heads + kv) * HEAD_DIM, step, begin, end);
    for (int head = kv * group; head < (kv + 1) * group; head++) {
        const float *ls = logsums + (u64)head * rows, *sh = shared + (u64)head * rows;
        for (int from = begin; from < last; from += TILE) {
            __syncthreads();
            load_rows(q, qkv + head * HEAD_DIM, step, from, last);
            load_rows(d, d_context + head * HEAD_DIM, (u64)heads * HEAD_DIM, from, last);
            __syncthreads();
            tile_gradient(q, d, k, v, ls, sh, from, last, begin, window, scale, p, ds);
            __syncthreads();
            weigh_back<N>(p, d, d_values);
            weigh_back<N>(ds, q, d_keys);
        }
    }
    store<N>(d_qkv + (heads + kv) * HEAD_DIM, step, begin, end, d_keys, scale);
    store<N>(d_qkv + (heads + kv_heads + kv) * HEAD_DIM, step, begin, end, d_values, 1.0f);
}
