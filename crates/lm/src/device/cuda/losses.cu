// The loss at a place and its gradient in the place of the logits, log-probabilities, and the likeliest tokens: a block a row.
// What the terms mean stands beside their like for the processor (`device/cpu/losses.rs`, `divergence.rs`).

// What each question is: its token, and where what its teacher says begins; one more entry ends the last one.
#define TOKEN(i) questions[2 * (i)]
#define BEGIN(i) questions[2 * (i) + 1]

__device__ float row_max(const float* row, int vocab) {
    float largest = -INFINITE;
    for (int at = threadIdx.x; at < vocab; at += THREADS) largest = fmaxf(largest, row[at]);
    return block_max(largest);
}

__device__ float row_sum(const float* row, int vocab, float largest) {
    float sum = 0.0f;
    for (int at = threadIdx.x; at < vocab; at += THREADS) sum += expf(row[at] - largest);
    return block_sum(sum);
}

// Nothing of nothing is nothing.
__device__ double times(double factor, double log) { return factor > 0.0 ? factor * log : 0.0; }

// What a class adds to a divergence, and the slope by the student's probability.
__device__ void terms(int kind, double number, double p, double log_p, double q, double log_q, double* part, double* slope) {
    const double least = 2.2250738585072014e-308;
    double log_m, m;
    switch (kind) {
    case 0:
        *part = times(p, log_p - log_q);
        *slope = -exp(log_p - log_q);
        break;
    case 1:
        *part = times(q, log_q - log_p);
        *slope = log_q - log_p;
        break;
    case 2:
        log_m = log(fmax(number * p + (1.0 - number) * q, least));
        *part = number * times(p, log_p - log_m) + (1.0 - number) * times(q, log_q - log_m);
        *slope = (1.0 - number) * (log_q - log_m);
        break;
    case 3:
        m = fmax(number * p + (1.0 - number) * q, least);
        *part = times(p, log_p - log(m));
        *slope = -(1.0 - number) * p / m;
        break;
    case 4:
        m = fmax((1.0 - number) * p + number * q, least);
        *part = times(q, log_q - log(m));
        *slope = log_q - log(m) - number * q / m;
        break;
    default:
        *part = 0.5 * fabs(p - q);
        *slope = 0.5 * (q > p ? 1.0 : -1.0);
    }
}

// Divides log-probabilities by the temperature and makes their probabilities add up to 1.
__device__ void temper(double* logs, int count, double temperature) {
    double largest = -1e300;
    for (int at = threadIdx.x; at < count; at += THREADS) largest = fmax(largest, logs[at]);
    largest = block_max_wide(largest) / temperature;
    double sum = 0.0;
    for (int at = threadIdx.x; at < count; at += THREADS) sum += exp(logs[at] / temperature - largest);
    double shift = largest + log(block_sum_wide(sum));
    for (int at = threadIdx.x; at < count; at += THREADS) logs[at] = logs[at] / temperature - shift;
    __syncthreads();
}

// Leaves in `out` for each row what is minimised, the cross-entropy and the divergence. `plain` says that the divergence is
// the forward one at temperature 1. `taken` has room for a number a teacher's token, `logs` for twice one more a row.
extern "C" __global__ void losses(
    float* logits, int vocab, const u32* questions, const float* weights, const u32* tokens, const float* said,
    float share, int plain, int kind, double number, double temperature, float* taken, double* logs, float* out
) {
    u64 index = blockIdx.x;
    float* row = logits + index * vocab;
    int target = TOKEN(index), begin = BEGIN(index), count = BEGIN(index + 1) - begin;
    float weight = weights[index], logit = row[target], largest = row_max(row, vocab);
    tokens += begin; said += begin; taken += begin;
    out += 3 * index;
    __syncthreads();
    if (count == 0) {
        float sum = row_sum(row, vocab, largest), loss = largest - logit + logf(sum), factor = weight / sum;
        __syncthreads();
        for (int at = threadIdx.x; at < vocab; at += THREADS) {
            float value = expf(row[at] - largest) * factor;
            row[at] = at == target ? value - weight : value;
        }
        if (threadIdx.x == 0) { out[0] = loss; out[1] = loss; out[2] = 0.0f; }
        return;
    }
    // The teacher's tokens are taken out, so that the sum of the others is exact.
    for (int at = threadIdx.x; at < count; at += THREADS) {
        taken[at] = row[tokens[at]] - largest;
        row[tokens[at]] = -INFINITE;
    }
    __syncthreads();
    float rest = row_sum(row, vocab, largest);
    if (plain && count < vocab) {
        float mass = 0.0f, known = 0.0f;
        for (int at = threadIdx.x; at < count; at += THREADS) { mass += expf(said[at]); known += expf(taken[at]); }
        mass = block_sum(mass);
        known = block_sum(known);
        float shift = mass > 1.0f ? logf(mass) : 0.0f, teacher_rest = fmaxf(1.0f - mass, 0.0f), divergence = 0.0f;
        for (int at = threadIdx.x; at < count; at += THREADS) {
            divergence += expf(said[at] - shift) * (said[at] - shift - taken[at]);
        }
        divergence = block_sum(divergence);
        float whole = known + rest, student_rest = fmaxf(rest / whole, 1e-12f);
        divergence += (1.0f - teacher_rest) * logf(whole);
        if (teacher_rest > 0.0f) divergence += teacher_rest * logf(teacher_rest / student_rest);
        float entropy = largest - logit + logf(whole);
        float factor = weight * (1.0f - share * teacher_rest / student_rest) / whole;
        for (int at = threadIdx.x; at < vocab; at += THREADS) row[at] = expf(row[at] - largest) * factor;
        __syncthreads();
        for (int at = threadIdx.x; at < count; at += THREADS) {
            row[tokens[at]] = weight * (expf(taken[at]) / whole - share * expf(said[at] - shift));
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            row[target] -= weight * (1.0f - share);
            out[0] = (1.0f - share) * entropy + share * divergence;
            out[1] = entropy;
            out[2] = divergence;
        }
        return;
    }
    // Any divergence at any temperature, over the teacher's tokens and one class for all others.
    bool every = count == vocab;
    int classes = every ? count : count + 1;
    double *told = logs + 2 * (begin + index), *own = told + count + 1;
    double known = 0.0, mass = 0.0;
    for (int at = threadIdx.x; at < count; at += THREADS) { known += exp((double)taken[at]); mass += exp((double)said[at]); }
    known = block_sum_wide(known);
    mass = block_sum_wide(mass);
    double others = every ? 0.0 : (double)rest, whole = known + others, logsum = log(whole);
    double student_rest = fmax(others / whole, 1e-30);
    for (int at = threadIdx.x; at < count; at += THREADS) { told[at] = said[at]; own[at] = taken[at] - logsum; }
    if (threadIdx.x == 0 && !every) { told[count] = log(fmax(1.0 - mass, 1e-7)); own[count] = log(student_rest); }
    __syncthreads();
    temper(told, classes, temperature);
    temper(own, classes, temperature);
    double divergence = 0.0, middle = 0.0, part, slope;
    for (int at = threadIdx.x; at < classes; at += THREADS) {
        double q = exp(own[at]);
        terms(kind, number, exp(told[at]), told[at], q, own[at], &part, &slope);
        divergence += part;
        middle += q * slope;
    }
    divergence = block_sum_wide(divergence);
    middle = block_sum_wide(middle);
    for (int at = threadIdx.x; at < classes; at += THREADS) {
        double q = exp(own[at]);
        terms(kind, number, exp(told[at]), told[at], q, own[at], &part, &slope);
        own[at] = temperature * q * (slope - middle);
    }
    __syncthreads();
    double entropy = largest + logsum - logit, mixed = share;
    float factor = every ? 0.0f : (float)(weight * ((1.0 - mixed) + mixed * own[count] / student_rest) / whole);
    for (int at = threadIdx.x; at < vocab; at += THREADS) row[at] = expf(row[at] - largest) * factor;
    __syncthreads();
    for (int at = threadIdx.x; at < count; at += THREADS) {
        row[tokens[at]] = (float)(weight * ((1.0 - mixed) * exp((double)taken[at]) / whole + mixed * own[at]));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        row[target] -= weight * (1.0f - share);
        out[0] = (float)((1.0 - mixed) * entropy + mixed * temperature * temperature * divergence);
        out[1] = (float)entropy;
        out[2] = (float)divergence;
    }
}

// The log-probability of each row's token, and 1 where it is the likeliest.
extern "C" __global__ void logprobs(const float* logits, int vocab, const u32* tokens, float* out) {
    const float* row = logits + (u64)blockIdx.x * vocab;
    float largest = row_max(row, vocab), sum = row_sum(row, vocab, largest), logit = row[tokens[blockIdx.x]];
    if (threadIdx.x == 0) {
        out[2 * blockIdx.x] = logit - largest - logf(sum);
        out[2 * blockIdx.x + 1] = logit >= largest ? 1.0f : 0.0f;
    }
}

// The k likeliest tokens of each row, likeliest first, among equals the first one first, and their log-probabilities.
extern "C" __global__ void top(const float* logits, int vocab, int k, u32* tokens, float* out) {
    __shared__ float values[THREADS];
    __shared__ int places[THREADS];
    const float* row = logits + (u64)blockIdx.x * vocab;
    float largest = row_max(row, vocab), shift = largest + logf(row_sum(row, vocab, largest));
    float last = INFINITE;
    int last_place = -1;
    for (int rank = 0; rank < k; rank++) {
        float best = -INFINITE;
        int place = vocab;
        for (int at = threadIdx.x; at < vocab; at += THREADS) {
            float value = row[at] - shift;
            bool later = value < last || (value == last && at > last_place);
            if (later && (value > best || place == vocab)) { best = value; place = at; }
        }
        __syncthreads();
        values[threadIdx.x] = best;
        places[threadIdx.x] = place;
        __syncthreads();
        for (int half = THREADS / 2; half > 0; half /= 2) {
            if (threadIdx.x < half) {
                float other = values[threadIdx.x + half];
                int there = places[threadIdx.x + half];
                bool better = there < vocab && (places[threadIdx.x] == vocab || other > values[threadIdx.x]
                    || (other == values[threadIdx.x] && there < places[threadIdx.x]));
                if (better) { values[threadIdx.x] = other; places[threadIdx.x] = there; }
            }
            __syncthreads();
        }
        last = values[0];
        last_place = places[0];
        if (threadIdx.x == 0) {
            tokens[(u64)blockIdx.x * k + rank] = last_place;
            out[(u64)blockIdx.x * k + rank] = last;
        }
    }
}
