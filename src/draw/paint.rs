//! Painting on a picture at once.

use super::{Atlas, Canvas, Ink, Mask, Point, Raster, clip};
use crate::media::I420;

impl Canvas for I420 {
    fn size(&self) -> [u32; 2] {
        [self.width(), self.height()]
    }

    fn rect(&mut self, [x0, y0, x1, y1]: [i32; 4], ink: Ink) {
        let (width, height) = (self.width() as usize, self.height() as usize);
        let ((x0, x1), (y0, y1)) = (clip(x0, x1, width), clip(y0, y1, height));
        if x0 >= x1 || y0 >= y1 {
            return;
        }
        let [luma_stride, chroma_stride, _] = self.strides();
        let (chroma_width, chroma_height) = self.chroma_size();
        let [luma, chroma @ ..] = self.planes_mut();
        for row in luma.chunks_exact_mut(luma_stride).take(y1).skip(y0) {
            blend(&mut row[x0..x1], ink.codes[0], ink.opacity.into());
        }
        let [left, right] = [x0 / 2, (x1 - 1) / 2];
        // Luma columns or rows of a chroma sample, and how many of them the rectangle covers.
        let share = |cell: usize, from: usize, to: usize, size: usize| {
            let end = (2 * cell + 2).min(size);
            (end - 2 * cell, end.min(to).saturating_sub(from.max(2 * cell)))
        };
        debug_assert!(right < chroma_width && (y1 - 1) / 2 < chroma_height, "clipped to the picture");
        for (plane, code) in chroma.into_iter().zip([ink.codes[1], ink.codes[2]]) {
            for cell_y in y0 / 2..=(y1 - 1) / 2 {
                let row = &mut plane[cell_y * chroma_stride..][..chroma_width];
                let (tall, covered_tall) = share(cell_y, y0, y1, height);
                let mut part = |cells: std::ops::Range<usize>, wide: usize, covered: usize| {
                    let opacity = usize::from(ink.opacity) * covered * covered_tall / (wide * tall);
                    blend(&mut row[cells], code, u32::try_from(opacity).unwrap_or(256));
                };
                let (wide, covered) = share(left, x0, x1, width);
                part(left..left + 1, wide, covered);
                if right > left {
                    part(left + 1..right, 1, 1);
                    let (wide, covered) = share(right, x0, x1, width);
                    part(right..right + 1, wide, covered);
                }
            }
        }
    }

    fn stamp(&mut self, (x, y): (i32, i32), mask: Mask, atlas: &Atlas, ink: Ink) {
        let (width, height) = (self.width() as usize, self.height() as usize);
        let ([mask_width, mask_height], coverage) = (mask.size(), atlas.pixels(mask));
        let ends = (x.saturating_add(mask_width.into()), y.saturating_add(mask_height.into()));
        let ((x0, x1), (y0, y1)) = (clip(x, ends.0, width), clip(y, ends.1, height));
        if x0 >= x1 || y0 >= y1 || coverage.is_empty() {
            return;
        }
        // The mask's row that lies on the picture's, from column `x0` on.
        let (left, top) = (x.min(0).unsigned_abs() as usize, y.min(0).unsigned_abs() as usize);
        let line = |row: usize| &coverage[(row - y0 + top) * usize::from(mask_width) + left..][..x1 - x0];
        let [luma_stride, chroma_stride, _] = self.strides();
        let [luma, cb, cr] = self.planes_mut();
        let whole = u32::from(ink.opacity);
        for row in y0..y1 {
            for (sample, &covered) in luma[row * luma_stride + x0..].iter_mut().zip(line(row)) {
                mix(sample, ink.codes[0], u32::from(covered) * whole / 255);
            }
        }
        for cell_y in y0 / 2..=(y1 - 1) / 2 {
            let lines = [2 * cell_y, 2 * cell_y + 1].map(|row| if (y0..y1).contains(&row) { line(row) } else { &[] });
            let tall = (2 * cell_y + 2).min(height) - 2 * cell_y;
            for cell_x in x0 / 2..=(x1 - 1) / 2 {
                let columns = (2 * cell_x).max(x0) - x0..(2 * cell_x + 2).min(x1) - x0;
                let covered = lines.into_iter().filter_map(|line| line.get(columns.clone())).flatten();
                let sum: u32 = covered.map(|&share| u32::from(share)).sum();
                if sum > 0 {
                    let wide = (2 * cell_x + 2).min(width) - 2 * cell_x;
                    let pixels = u32::try_from(wide * tall).unwrap_or(4);
                    let opacity = sum * whole / (255 * pixels);
                    let at = cell_y * chroma_stride + cell_x;
                    mix(&mut cb[at], ink.codes[1], opacity);
                    mix(&mut cr[at], ink.codes[2], opacity);
                }
            }
        }
    }

    fn fill(&mut self, polygon: &[Point], raster: &mut Raster, ink: Ink) {
        let (width, height) = (self.width() as usize, self.height() as usize);
        let (chroma_width, chroma_height) = self.chroma_size();
        let [luma_stride, chroma_stride, _] = self.strides();
        let [luma, cb, cr] = self.planes_mut();
        raster.cover(polygon, 1.0, (width, height), |x, y, coverage| {
            let row = &mut luma[y * luma_stride + x..][..coverage.len()];
            for (sample, &share) in row.iter_mut().zip(coverage) {
                mix(sample, ink.codes[0], ink.covering(share).into());
            }
        });
        raster.cover(polygon, 0.5, (chroma_width, chroma_height), |x, y, coverage| {
            let at = y * chroma_stride + x;
            for (plane, code) in [(&mut *cb, ink.codes[1]), (&mut *cr, ink.codes[2])] {
                for (sample, &share) in plane[at..][..coverage.len()].iter_mut().zip(coverage) {
                    mix(sample, code, ink.covering(share).into());
                }
            }
        });
    }
}

#[inline(always)]
fn blend(row: &mut [u8], code: u8, opacity: u32) {
    let opacity = opacity.min(256) as u16;
    let (keep, add) = (256 - opacity, u16::from(code) * opacity + 128);
    for sample in row {
        *sample = ((u16::from(*sample) * keep + add) >> 8) as u8;
    }
}

#[inline(always)]
fn mix(sample: &mut u8, code: u8, opacity: u32) {
    blend(std::slice::from_mut(sample), code, opacity);
}
