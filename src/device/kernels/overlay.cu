// The kernel that paints overlays. Plain C++ without includes: NVRTC compiles it for the device (scripts/kernels.py), tests
// compile it for the host. The structures are those of overlay.rs, in words where they lie in one piece of memory.
//
// All arithmetic is that of whole numbers, as on the CPU (src/draw/paint.rs), so that both give the same bits.

// A picture in NV12. Chroma planes have half the sides of luma, rounded up; pitches are bytes from row to row.
struct Nv12 {
    unsigned char *luma;
    unsigned char *chroma;
    unsigned luma_pitch;
    unsigned chroma_pitch;
    unsigned width;
    unsigned height;
};

// A part of the picture that something is painted on, and which of the list's operations do, in their order.
struct Tile {
    // Counted in tiles: columns in the lower half, rows in the upper one.
    unsigned place;
    unsigned first;
    unsigned end;
};

struct Operation {
    // Codes of Y, Cb and Cr from the lowest byte on, then the shape.
    unsigned ink;
    // Opacity, 0..256, in the lower half; bytes of a mask's row in the upper one.
    unsigned share;
    // What it covers at most: left and top in the lower halves, right and bottom, beyond it, in the upper ones.
    unsigned across;
    unsigned down;
    // Of a mask: the byte of its first sample. Of runs: the word where its first row begins.
    unsigned start;

    __device__ unsigned shape() const { return ink >> 24; }
    __device__ unsigned code(unsigned plane) const { return ink >> 8 * plane & 255; }
    __device__ unsigned opacity() const { return share & 0xffff; }
    __device__ unsigned left() const { return across & 0xffff; }
    __device__ unsigned right() const { return across >> 16; }
    __device__ unsigned top() const { return down & 0xffff; }
    __device__ unsigned bottom() const { return down >> 16; }
    __device__ bool covers(unsigned x, unsigned y) const {
        return x >= left() && x < right() && y >= top() && y < bottom();
    }
};

struct Paint {
    Nv12 picture;
    // Coverage of the masks, 0..255.
    const unsigned char *atlas;
    const Tile *tiles;
    // Numbers of operations.
    const unsigned *lists;
    const Operation *operations;
    // Of an operation: where each of its rows begins, and where the last one ends; and rows of runs. A run is the sample
    // after its last one in the lower half, and the opacity in the upper one.
    const unsigned *runs;
    unsigned count;
};

// Shapes beside the rectangle.
static const unsigned MASK = 1, LUMA = 2, CHROMA = 3;

static __device__ unsigned blend(unsigned sample, unsigned code, unsigned opacity) {
    return (sample * (256 - opacity) + code * opacity + 128) >> 8;
}

// The opacity of a sample inside an operation's bounds: of the first run that ends after it.
static __device__ unsigned in_runs(const unsigned *runs, const Operation &operation, unsigned x, unsigned y) {
    const unsigned *rows = runs + operation.start + (y - operation.top());
    unsigned low = rows[0], high = rows[1];
    const unsigned end = high;
    while (low < high) {
        const unsigned middle = low + (high - low) / 2;
        if ((runs[middle] & 0xffff) > x) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low < end ? runs[low] >> 16 : 0;
}

// One sample of Cb and of Cr and the up to four of luma beside it: a thread each. A block paints a tile.
extern "C" __global__ void overlay_paint(const Paint p) {
    if (blockIdx.x >= p.count) {
        return;
    }
    const Tile tile = p.tiles[blockIdx.x];
    const unsigned x = (tile.place & 0xffff) * blockDim.x + threadIdx.x;
    const unsigned y = (tile.place >> 16) * blockDim.y + threadIdx.y;
    if (2 * x >= p.picture.width || 2 * y >= p.picture.height) {
        return;
    }
    // On the right and the lower edge of odd sides there are fewer.
    const bool inside[4] = {true, 2 * x + 1 < p.picture.width, 2 * y + 1 < p.picture.height,
                            2 * x + 1 < p.picture.width && 2 * y + 1 < p.picture.height};
    const unsigned all = inside[3] ? 4 : inside[1] || inside[2] ? 2 : 1;
    unsigned char *place[4];
    unsigned luma[4];
    for (unsigned n = 0; n < 4; n++) {
        place[n] = p.picture.luma + (unsigned long long)(2 * y + n / 2) * p.picture.luma_pitch + 2 * x + n % 2;
        luma[n] = inside[n] ? *place[n] : 0;
    }
    unsigned char *codes = p.picture.chroma + (unsigned long long)y * p.picture.chroma_pitch + 2 * x;
    unsigned cb = codes[0], cr = codes[1];

    for (unsigned entry = tile.first; entry < tile.end; entry++) {
        const Operation operation = p.operations[p.lists[entry]];
        const unsigned shape = operation.shape();
        unsigned opacity = 0;
        if (shape == CHROMA) {
            opacity = operation.covers(x, y) ? in_runs(p.runs, operation, x, y) : 0;
        } else {
            unsigned sum = 0;
            for (unsigned n = 0; n < 4; n++) {
                const unsigned column = 2 * x + n % 2, row = 2 * y + n / 2;
                if (!inside[n] || !operation.covers(column, row)) {
                    continue;
                }
                unsigned own = operation.opacity();
                if (shape == MASK) {
                    const unsigned long long line = row - operation.top(), stride = operation.share >> 16;
                    const unsigned covered = p.atlas[operation.start + line * stride + (column - operation.left())];
                    sum += covered;
                    own = covered * own / 255;
                } else if (shape == LUMA) {
                    own = in_runs(p.runs, operation, column, row);
                } else {
                    sum++;
                }
                luma[n] = blend(luma[n], operation.code(0), own);
            }
            if (shape != LUMA) {
                opacity = sum * operation.opacity() / (shape == MASK ? 255 * all : all);
            }
        }
        cb = blend(cb, operation.code(1), opacity);
        cr = blend(cr, operation.code(2), opacity);
    }

    for (unsigned n = 0; n < 4; n++) {
        if (inside[n]) {
            *place[n] = (unsigned char)luma[n];
        }
    }
    codes[0] = (unsigned char)cb;
    codes[1] = (unsigned char)cr;
}
