use saccade::media::I420;

/// Numbers without a pattern that are the same for the same seed: SplitMix64 (Steele et al., 2014).
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `from..=to`.
    pub fn between(&mut self, from: u32, to: u32) -> u32 {
        from + (self.next() % u64::from(to - from + 1)) as u32
    }

    /// One of `from..to`.
    pub fn real(&mut self, from: f32, to: f32) -> f32 {
        let share = (self.next() >> 40) as f32 / (1u32 << 24) as f32;
        from + (to - from) * share
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.next() as usize % all.len()]
    }

    /// A picture of noise.
    pub fn noise(&mut self, width: u32, height: u32) -> I420 {
        let mut picture = I420::new(width, height);
        for plane in picture.planes_mut() {
            for codes in plane.chunks_mut(8) {
                codes.copy_from_slice(&self.next().to_ne_bytes()[..codes.len()]);
            }
        }
        picture
    }
}
