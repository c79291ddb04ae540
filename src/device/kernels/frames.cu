// Kernels on pictures. Plain C++ without includes: NVRTC compiles it for the device (scripts/kernels.py), tests compile it
// for the host. The structures are those of frames.rs.
//
// No multiplication is fused with an addition (--fmad=false), and the sums come in the order of the preprocessor on the
// CPU (src/infer/preprocess), so that both give the same bits.

// A picture in NV12. Chroma planes have half the sides of luma, rounded up; pitches are bytes from row to row.
struct Nv12 {
    unsigned char *luma;
    unsigned char *chroma;
    unsigned luma_pitch;
    unsigned chroma_pitch;
    unsigned width;
    unsigned height;
};

struct Mix {
    float y, cb, cr, base, scale, offset;
};

struct Tensor {
    Nv12 picture;
    const unsigned *tables;
    void *values;
    unsigned width, height;
    unsigned left, top, columns, rows;
    unsigned channels;
    unsigned order;
    unsigned precision;
    Mix mixes[3];
    float pad[3];
};

struct Halve {
    Nv12 from;
    Nv12 to;
};

struct Turn {
    Nv12 from;
    Nv12 to;
    unsigned quarters;
};

struct Planes {
    Nv12 from;
    unsigned char *to;
};

static const unsigned INTERLEAVED = 1, HALF = 1;

static __device__ unsigned at_most(unsigned value, unsigned limit) { return value < limit ? value : limit; }

static __device__ const unsigned char *row_of(const unsigned char *plane, unsigned pitch, unsigned row) {
    return plane + (unsigned long long)row * pitch;
}

static __device__ float blend(float first, float second, float share) { return first + (second - first) * share; }

static __device__ float three_taps(const float *values, const float *weights) {
    return values[0] * weights[0] + values[1] * weights[1] + values[2] * weights[2];
}

// Rounds to the nearest number of half precision; of two equally near ones to the even one.
static __device__ unsigned short to_half(float value) {
#ifdef __CUDACC__
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
#else
    union {
        float value;
        unsigned bits;
    } word;
    word.value = value;
    const unsigned sign = word.bits >> 16 & 0x8000u, rest = word.bits & 0x7fffffffu;
    if (rest > 0x7f800000u) {
        return 0x7fff; // not a number
    }
    if (rest >= 0x477ff000u) {
        return (unsigned short)(sign | 0x7c00u); // 65520 or more
    }
    unsigned kept, lost, middle;
    if (rest >= 0x38800000u) {
        kept = (rest - 0x38000000u) >> 13;
        lost = rest & 0x1fffu;
        middle = 0x1000u;
    } else if (rest >= 0x33000000u) { // below the smallest normal number
        const unsigned shift = 126u - (rest >> 23), digits = (rest & 0x7fffffu) | 0x800000u;
        kept = digits >> shift;
        lost = digits & ((1u << shift) - 1u);
        middle = 1u << (shift - 1u);
    } else {
        return (unsigned short)sign;
    }
    return (unsigned short)(sign | (kept + (lost > middle || (lost == middle && (kept & 1u)))));
#endif
}

// Where the positions of one axis sample: `count` indices of luma and as many shares of the next sample, then `count`
// indices of chroma and three weights each, weight by weight.
struct Axis {
    const unsigned *words;
    unsigned count;

    __device__ unsigned luma(unsigned at) const { return words[at]; }
    __device__ float share(unsigned at) const { return ((const float *)words)[count + at]; }
    __device__ unsigned chroma(unsigned at) const { return words[2 * count + at]; }
    __device__ void weights(unsigned at, float *all) const {
        for (unsigned tap = 0; tap < 3; tap++) {
            all[tap] = ((const float *)words)[(3 + tap) * count + at];
        }
    }
};

static __device__ float sample_luma(const Nv12 &picture, const Axis &across, const Axis &down, unsigned column,
                                    unsigned row) {
    const unsigned first = down.luma(row), left = across.luma(column);
    const unsigned right = at_most(left + 1, picture.width - 1);
    const unsigned char *upper = row_of(picture.luma, picture.luma_pitch, first);
    const unsigned char *lower = row_of(picture.luma, picture.luma_pitch, at_most(first + 1, picture.height - 1));
    const float share = down.share(row);
    return blend(blend(upper[left], lower[left], share), blend(upper[right], lower[right], share), across.share(column));
}

static __device__ void sample_chroma(const Nv12 &picture, const Axis &across, const Axis &down, unsigned column,
                                     unsigned row, float *both) {
    const unsigned last_column = (picture.width + 1) / 2 - 1, last_row = (picture.height + 1) / 2 - 1;
    const unsigned left = across.chroma(column), top = down.chroma(row);
    float weights[3], cb[3], cr[3];
    down.weights(row, weights);
    for (unsigned n = 0; n < 3; n++) {
        const unsigned place = 2 * at_most(left + n, last_column);
        float cb_codes[3], cr_codes[3];
        for (unsigned m = 0; m < 3; m++) {
            const unsigned char *codes = row_of(picture.chroma, picture.chroma_pitch, at_most(top + m, last_row)) + place;
            cb_codes[m] = codes[0];
            cr_codes[m] = codes[1];
        }
        cb[n] = three_taps(cb_codes, weights);
        cr[n] = three_taps(cr_codes, weights);
    }
    across.weights(column, weights);
    both[0] = three_taps(cb, weights);
    both[1] = three_taps(cr, weights);
}

// One position of a model's input, all channels: a thread each.
extern "C" __global__ void nv12_to_tensor(const Tensor p) {
    const unsigned x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= p.width || y >= p.height) {
        return;
    }
    float values[3] = {p.pad[0], p.pad[1], p.pad[2]};
    // Left of the picture and above it these are larger than any side.
    const unsigned column = x - p.left, row = y - p.top;
    if (column < p.columns && row < p.rows) {
        const Axis across = {p.tables, p.columns}, down = {p.tables + 6ull * p.columns, p.rows};
        const float luma = sample_luma(p.picture, across, down, column, row);
        float chroma[2] = {0.0f, 0.0f};
        if (p.channels == 3) {
            sample_chroma(p.picture, across, down, column, row, chroma);
        }
        for (unsigned channel = 0; channel < 3; channel++) {
            const Mix &mix = p.mixes[channel];
            float pixel = luma * mix.y + chroma[0] * mix.cb + chroma[1] * mix.cr + mix.base;
            pixel = pixel < 0.0f ? 0.0f : pixel;
            pixel = pixel > 255.0f ? 255.0f : pixel;
            values[channel] = pixel * mix.scale + mix.offset;
        }
    }
    const unsigned long long pixels = (unsigned long long)p.width * p.height, pixel = (unsigned long long)y * p.width + x;
    for (unsigned channel = 0; channel < 3; channel++) {
        if (channel < p.channels) {
            const unsigned long long place =
                p.order == INTERLEAVED ? pixel * p.channels + channel : channel * pixels + pixel;
            if (p.precision == HALF) {
                ((unsigned short *)p.values)[place] = to_half(values[channel]);
            } else {
                ((float *)p.values)[place] = values[channel];
            }
        }
    }
}

struct Plane {
    const unsigned char *samples;
    unsigned pitch, columns, rows;
    // Bytes from sample to sample.
    unsigned step;

    __device__ unsigned sample(unsigned column, unsigned row) const {
        return row_of(samples, pitch, at_most(row, rows - 1))[column * step];
    }

    // The sample of a plane of half the size that is `to_columns` wide: the mean of four; of the first column's two where
    // this one is too narrow for that.
    __device__ unsigned char mean(unsigned column, unsigned row, unsigned to_columns) const {
        if (columns < 2 * to_columns) {
            return (unsigned char)((sample(0, 2 * row) + sample(0, 2 * row + 1)) / 2);
        }
        const unsigned upper = sample(2 * column, 2 * row) + sample(2 * column + 1, 2 * row);
        const unsigned lower = sample(2 * column, 2 * row + 1) + sample(2 * column + 1, 2 * row + 1);
        return (unsigned char)((upper + lower + 2) / 4);
    }
};

// One sample of Cb and of Cr and the four of luma beside it: a thread each.
extern "C" __global__ void nv12_halve(const Halve p) {
    const unsigned x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    const unsigned columns = (p.to.width + 1) / 2, rows = (p.to.height + 1) / 2;
    if (x >= columns || y >= rows) {
        return;
    }
    const Plane luma = {p.from.luma, p.from.luma_pitch, p.from.width, p.from.height, 1};
    for (unsigned row = 2 * y; row < at_most(2 * y + 2, p.to.height); row++) {
        for (unsigned column = 2 * x; column < at_most(2 * x + 2, p.to.width); column++) {
            p.to.luma[(unsigned long long)row * p.to.luma_pitch + column] = luma.mean(column, row, p.to.width);
        }
    }
    unsigned char *codes = p.to.chroma + (unsigned long long)y * p.to.chroma_pitch + 2 * x;
    for (unsigned n = 0; n < 2; n++) {
        const unsigned from_columns = (p.from.width + 1) / 2, from_rows = (p.from.height + 1) / 2;
        const Plane chroma = {p.from.chroma + n, p.from.chroma_pitch, from_columns, from_rows, 2};
        codes[n] = chroma.mean(x, y, columns);
    }
}

// The same share of a picture a thread.
extern "C" __global__ void nv12_to_planes(const Planes p) {
    const unsigned x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    const unsigned columns = (p.from.width + 1) / 2, rows = (p.from.height + 1) / 2;
    if (x >= columns || y >= rows) {
        return;
    }
    for (unsigned row = 2 * y; row < at_most(2 * y + 2, p.from.height); row++) {
        const unsigned char *luma = row_of(p.from.luma, p.from.luma_pitch, row);
        for (unsigned column = 2 * x; column < at_most(2 * x + 2, p.from.width); column++) {
            p.to[(unsigned long long)row * p.from.width + column] = luma[column];
        }
    }
    unsigned char *chroma = p.to + (unsigned long long)p.from.width * p.from.height;
    const unsigned char *codes = row_of(p.from.chroma, p.from.chroma_pitch, y) + 2 * x;
    const unsigned long long place = (unsigned long long)y * columns + x;
    chroma[place] = codes[0];
    chroma[(unsigned long long)columns * rows + place] = codes[1];
}

// The sample of a plane that is at this place after some quarter turns clockwise.
static __device__ unsigned char turned(const Plane &plane, unsigned quarters, unsigned column, unsigned row) {
    const unsigned right = plane.columns - 1, bottom = plane.rows - 1;
    switch (quarters) {
    case 1:
        return (unsigned char)plane.sample(row, bottom - column);
    case 2:
        return (unsigned char)plane.sample(right - column, bottom - row);
    default:
        return (unsigned char)plane.sample(right - row, column);
    }
}

// One sample of Cb and of Cr and the four of luma beside it: a thread each.
extern "C" __global__ void nv12_turn(const Turn p) {
    const unsigned x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= (p.to.width + 1) / 2 || y >= (p.to.height + 1) / 2) {
        return;
    }
    const Plane luma = {p.from.luma, p.from.luma_pitch, p.from.width, p.from.height, 1};
    for (unsigned row = 2 * y; row < at_most(2 * y + 2, p.to.height); row++) {
        for (unsigned column = 2 * x; column < at_most(2 * x + 2, p.to.width); column++) {
            p.to.luma[(unsigned long long)row * p.to.luma_pitch + column] = turned(luma, p.quarters, column, row);
        }
    }
    unsigned char *codes = p.to.chroma + (unsigned long long)y * p.to.chroma_pitch + 2 * x;
    for (unsigned n = 0; n < 2; n++) {
        const unsigned columns = (p.from.width + 1) / 2, rows = (p.from.height + 1) / 2;
        const Plane chroma = {p.from.chroma + n, p.from.chroma_pitch, columns, rows, 2};
        codes[n] = turned(chroma, p.quarters, x, y);
    }
}
