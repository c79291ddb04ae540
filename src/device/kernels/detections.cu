// Kernels from a model's output to detections. Plain C++ without includes: NVRTC compiles it for the device
// (scripts/kernels.py), tests compile it for the host. The structures are those of detections.rs.
//
// No thread waits for another: the stages are launches of their own, in the order begin, yolov8 or yolox, rank, overlap,
// keep. No multiplication is fused with an addition (--fmad=false), and all arithmetic comes in the order of the decoders
// on the CPU (src/infer/decoder), so that both give the same bits. In which order the candidates of an item are found is
// open; the order that `rank` gives them is total but for candidates that are the same bit for bit.

// Candidates that are compared with each other, as on the CPU, and the words of as many bits.
static const unsigned MOST = 1024, WORDS = MOST / 32;
static const unsigned LEVELS = 8;

// A box with corners in input pixels.
struct Candidate {
    float x1, y1, x2, y2;
    unsigned kind;
    float score;
};

struct Wish {
    float score_threshold;
    float iou_threshold;
    unsigned max_detections;
};

struct Batch {
    const Wish *wishes;
    const unsigned *classes;
    unsigned *counts;
    Candidate *found;
    Candidate *surest;
    unsigned *hides;
    unsigned *results;
    unsigned items;
    unsigned anchors;
    unsigned class_words;
    unsigned most;
};

struct Yolov8 {
    Batch batch;
    const void *output;
    unsigned classes;
    unsigned precision;
};

struct Level {
    float stride;
    unsigned columns;
    unsigned cells;
};

struct Yolox {
    Batch batch;
    const void *output;
    unsigned classes;
    unsigned precision;
    Level levels[LEVELS];
};

static const unsigned HALF = 1;
static const float LOWEST = -3.40282346638528859812e+38f;

union Word {
    float value;
    unsigned bits;
    int whole;
};

static __device__ bool is_finite(float value) { return value - value == 0.0f; }

static __device__ float from_half(unsigned short half) {
#ifdef __CUDACC__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
#else
    const unsigned sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, digits = half & 0x3ffu;
    Word word;
    if (exponent == 0) {
        word.value = (float)digits / 16777216.0f;
        word.bits |= sign;
    } else {
        word.bits = sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | digits << 13;
    }
    return word.value;
#endif
}

static __device__ float number(const void *output, unsigned precision, unsigned long long at) {
    return precision == HALF ? from_half(((const unsigned short *)output)[at]) : ((const float *)output)[at];
}

// e to the power of `x`: the twin of exp.rs, which says where the numbers are from.
static __device__ float exponential(float x) {
    const double coefficients[12] = {1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0,
                                     1.0 / 5040.0,     1.0 / 720.0,     1.0 / 120.0,    1.0 / 24.0,
                                     1.0 / 6.0,        1.0 / 2.0,       1.0,            1.0};
    if (x != x) {
        return x;
    }
    if (x > 89.0f) {
        Word infinite;
        infinite.bits = 0x7f800000u;
        return infinite.value;
    }
    if (x < -104.0f) {
        return 0.0f;
    }
    const double exponent = x, magic = 6755399441055744.0;
    const double power = exponent * 1.44269504088896340736 + magic - magic;
    const double rest = exponent - power * 0.693147180559945309417;
    double sum = 0.0;
    for (unsigned n = 0; n < 12; n++) {
        sum = sum * rest + coefficients[n];
    }
    union {
        unsigned long long bits;
        double value;
    } factor;
    factor.bits = (unsigned long long)((long long)power + 1023) << 52;
    return (float)(sum * factor.value);
}

// Adds a candidate to those of its item if it is a box, wanted, and sure enough.
static __device__ void offer(const Batch &batch, unsigned item, const Candidate &box) {
    const bool finite = is_finite(box.x1) && is_finite(box.y1) && is_finite(box.x2) && is_finite(box.y2);
    const bool sound = finite && box.x2 > box.x1 && box.y2 > box.y1;
    const bool sure = box.score >= batch.wishes[item].score_threshold && is_finite(box.score);
    if (!sound || !sure || box.kind / 32 >= batch.class_words) {
        return;
    }
    const unsigned word = batch.classes[(unsigned long long)item * batch.class_words + box.kind / 32];
    if (!(word >> box.kind % 32 & 1u)) {
        return;
    }
    const unsigned place = atomicAdd(&batch.counts[item], 1u);
    if (place < batch.anchors) {
        Candidate *kept = &batch.found[(unsigned long long)item * batch.anchors + place];
        *kept = box;
        kept->score = box.score < 0.0f ? 0.0f : box.score > 1.0f ? 1.0f : box.score;
    }
}

static __device__ Candidate around(float x, float y, float half_width, float half_height, unsigned kind, float score) {
    const Candidate box = {x - half_width, y - half_height, x + half_width, y + half_height, kind, score};
    return box;
}

// The same as a number whose order is the total one of IEEE 754 (section 5.10).
static __device__ int ordered(float value) {
    Word word;
    word.value = value;
    return word.whole < 0 ? (int)(word.bits ^ 0x7fffffffu) : word.whole;
}

// Below 0 if `a` comes before `b`: the surer one, then the upper, the left one, the one that ends above, the one that
// ends left, the one of the lower class.
static __device__ int compare(const Candidate &a, const Candidate &b) {
    const int first[5] = {ordered(b.score), ordered(a.y1), ordered(a.x1), ordered(a.y2), ordered(a.x2)};
    const int second[5] = {ordered(a.score), ordered(b.y1), ordered(b.x1), ordered(b.y2), ordered(b.x2)};
    for (unsigned n = 0; n < 5; n++) {
        if (first[n] != second[n]) {
            return first[n] < second[n] ? -1 : 1;
        }
    }
    return a.kind == b.kind ? 0 : a.kind < b.kind ? -1 : 1;
}

static __device__ float larger(float a, float b) { return a > b ? a : b; }
static __device__ float smaller(float a, float b) { return a < b ? a : b; }

static __device__ float area(const Candidate &box) { return (box.x2 - box.x1) * (box.y2 - box.y1); }

// Intersection over union; 0 for boxes without area.
static __device__ float overlap(const Candidate &a, const Candidate &b) {
    const float width = larger(smaller(a.x2, b.x2) - larger(a.x1, b.x1), 0.0f);
    const float height = larger(smaller(a.y2, b.y2) - larger(a.y1, b.y1), 0.0f);
    const float common = width * height;
    const float all = area(a) + area(b) - common;
    return all > 0.0f ? common / all : 0.0f;
}

static __device__ unsigned found_in(const Batch &batch, unsigned item) {
    return batch.counts[item] < batch.anchors ? batch.counts[item] : batch.anchors;
}

static __device__ unsigned compared_in(const Batch &batch, unsigned item) {
    const unsigned found = found_in(batch, item);
    return found < MOST ? found : MOST;
}

// Forgets what was found before. An item a thread.
extern "C" __global__ void detections_begin(const Batch batch) {
    const unsigned item = blockIdx.x * blockDim.x + threadIdx.x;
    if (item < batch.items) {
        batch.counts[item] = 0;
    }
}

// Reads `[items][4 + classes][anchors]`. An anchor of an item a thread.
extern "C" __global__ void detections_yolov8(const Yolov8 p) {
    const unsigned anchor = blockIdx.x * blockDim.x + threadIdx.x, item = blockIdx.y, anchors = p.batch.anchors;
    if (anchor >= anchors || item >= p.batch.items) {
        return;
    }
    const unsigned long long start = (unsigned long long)item * (4 + p.classes) * anchors + anchor;
    unsigned kind = 0;
    float score = LOWEST;
    for (unsigned n = 0; n < p.classes; n++) {
        const float next = number(p.output, p.precision, start + (unsigned long long)(4 + n) * anchors);
        if (next > score) {
            kind = n;
            score = next;
        }
    }
    if (!(score >= p.batch.wishes[item].score_threshold)) {
        return;
    }
    float sides[4];
    for (unsigned n = 0; n < 4; n++) {
        sides[n] = number(p.output, p.precision, start + (unsigned long long)n * anchors);
    }
    offer(p.batch, item, around(sides[0], sides[1], sides[2] / 2.0f, sides[3] / 2.0f, kind, score));
}

// Reads `[items][anchors][5 + classes]`. An anchor of an item a thread.
extern "C" __global__ void detections_yolox(const Yolox p) {
    const unsigned anchor = blockIdx.x * blockDim.x + threadIdx.x, item = blockIdx.y, anchors = p.batch.anchors;
    if (anchor >= anchors || item >= p.batch.items) {
        return;
    }
    const unsigned long long start = ((unsigned long long)item * anchors + anchor) * (5 + p.classes);
    const float object = number(p.output, p.precision, start + 4);
    if (!(object >= p.batch.wishes[item].score_threshold)) {
        return;
    }
    unsigned level = 0, cell = anchor;
    while (level < LEVELS && cell >= p.levels[level].cells) {
        cell -= p.levels[level].cells;
        level++;
    }
    if (level == LEVELS) {
        return;
    }
    unsigned kind = 0;
    float score = LOWEST;
    for (unsigned n = 0; n < p.classes; n++) {
        const float next = number(p.output, p.precision, start + 5 + n);
        if (next > score) {
            kind = n;
            score = next;
        }
    }
    float sides[4];
    for (unsigned n = 0; n < 4; n++) {
        sides[n] = number(p.output, p.precision, start + n);
    }
    const float stride = p.levels[level].stride;
    const float column = (float)(cell % p.levels[level].columns), row = (float)(cell / p.levels[level].columns);
    const float x = (sides[0] + column) * stride, y = (sides[1] + row) * stride;
    const float half_width = exponential(sides[2]) * stride / 2.0f, half_height = exponential(sides[3]) * stride / 2.0f;
    offer(p.batch, item, around(x, y, half_width, half_height, kind, score * object));
}

// Puts the candidates of an item in order: each counts those that come before it. A candidate of an item a thread.
extern "C" __global__ void detections_rank(const Batch batch) {
    const unsigned own = blockIdx.x * blockDim.x + threadIdx.x, item = blockIdx.y;
    if (item >= batch.items || own >= found_in(batch, item)) {
        return;
    }
    const Candidate *all = batch.found + (unsigned long long)item * batch.anchors;
    const unsigned count = found_in(batch, item);
    const Candidate candidate = all[own];
    unsigned rank = 0;
    for (unsigned other = 0; other < count && rank < MOST; other++) {
        const int order = compare(all[other], candidate);
        rank += order < 0 || (order == 0 && other < own);
    }
    if (rank < MOST) {
        batch.surest[(unsigned long long)item * MOST + rank] = candidate;
    }
}

// Which of the later candidates each one hides if it stays. 32 of the later ones a thread.
extern "C" __global__ void detections_overlap(const Batch batch) {
    const unsigned word = blockIdx.x * blockDim.x + threadIdx.x, own = blockIdx.y * blockDim.y + threadIdx.y;
    const unsigned item = blockIdx.z;
    if (word >= WORDS || item >= batch.items || own >= compared_in(batch, item)) {
        return;
    }
    const unsigned count = compared_in(batch, item);
    const Candidate *all = batch.surest + (unsigned long long)item * MOST;
    const Candidate candidate = all[own];
    const float threshold = batch.wishes[item].iou_threshold;
    unsigned hidden = 0;
    for (unsigned bit = 0; bit < 32; bit++) {
        const unsigned other = 32 * word + bit;
        if (other > own && other < count && all[other].kind == candidate.kind &&
            overlap(candidate, all[other]) > threshold) {
            hidden |= 1u << bit;
        }
    }
    batch.hides[((unsigned long long)item * MOST + own) * WORDS + word] = hidden;
}

// Goes through the candidates in their order: what is not hidden stays, and hides others. An item a thread.
extern "C" __global__ void detections_keep(const Batch batch) {
    const unsigned item = blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= batch.items) {
        return;
    }
    const unsigned count = compared_in(batch, item), words = (count + 31) / 32;
    const unsigned wanted = batch.wishes[item].max_detections, most = wanted < batch.most ? wanted : batch.most;
    const Candidate *all = batch.surest + (unsigned long long)item * MOST;
    const unsigned *hides = batch.hides + (unsigned long long)item * MOST * WORDS;
    Candidate *results = (Candidate *)(batch.results + batch.items) + (unsigned long long)item * batch.most;
    unsigned hidden[WORDS];
    for (unsigned word = 0; word < WORDS; word++) {
        hidden[word] = 0;
    }
    unsigned kept = 0;
    for (unsigned own = 0; own < count && kept < most; own++) {
        if (hidden[own / 32] >> own % 32 & 1u) {
            continue;
        }
        results[kept++] = all[own];
        for (unsigned word = own / 32; word < words; word++) {
            hidden[word] |= hides[(unsigned long long)own * WORDS + word];
        }
    }
    batch.results[item] = kept;
}
