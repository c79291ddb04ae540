//! Text from the embedded font: letters are rasterised once for each size, and kept in the painter's atlas.

use std::collections::HashMap;

use ab_glyph::{Font as _, FontRef, Glyph, GlyphId, PxScale, ScaleFont as _, point};

use crate::draw::{Atlas, Canvas, Ink, Mask};

/// Letters begin at whole quarters of a pixel: finer than the eye tells, coarse enough to keep few copies.
const PHASES: u8 = 4;

/// Sizes known at once.
const MAX_SIZES: usize = 4;

/// Letters known of a size: more than any script's alphabet. Beyond it they are found anew, but not rasterised.
const MAX_LETTERS: usize = 2048;

/// The font and its rasterised letters.
#[derive(Debug)]
pub(crate) struct Lettering {
    font: FontRef<'static>,
    sizes: Vec<Size>,
    /// Of the atlas that has the letters.
    generation: u64,
}

impl Lettering {
    /// The embedded font, with no letters yet.
    #[expect(clippy::expect_used, reason = "the file is part of this crate, and a test reads it")]
    pub(crate) fn new() -> Self {
        let font =
            FontRef::try_from_slice(include_bytes!("font/inter-labels.otf")).expect("the embedded font is whole");
        Self { font, sizes: Vec::new(), generation: 0 }
    }

    /// Letters of `em` pixels, whose masks are in `atlas`.
    pub(crate) fn size<'a>(&'a mut self, em: f32, atlas: &'a mut Atlas) -> Letters<'a> {
        if self.generation != atlas.generation() {
            self.generation = atlas.generation();
            self.sizes.clear();
        }
        let at = self.sizes.iter().position(|size| size.em == em).unwrap_or_else(|| {
            if self.sizes.len() >= MAX_SIZES {
                self.sizes.remove(0);
            }
            let units = self.font.units_per_em().unwrap_or(1000.0);
            let scale = PxScale::from(em * self.font.height_unscaled() / units);
            self.sizes.push(Size { em, scale, letters: HashMap::new(), glyphs: HashMap::new() });
            self.sizes.len() - 1
        });
        Letters { font: &self.font, size: &mut self.sizes[at], atlas }
    }
}

#[derive(Debug)]
struct Size {
    em: f32,
    scale: PxScale,
    letters: HashMap<(char, u8), Letter>,
    /// The same by what shows: as many as the font has.
    glyphs: HashMap<(GlyphId, u8), Letter>,
}

/// One letter at one phase.
#[derive(Debug, Clone, Copy)]
struct Letter {
    advance: f32,
    /// Of the mask, from the pen's whole pixel on the baseline.
    offset: (i32, i32),
    mask: Mask,
}

/// Letters of one size.
pub(crate) struct Letters<'a> {
    font: &'a FontRef<'static>,
    size: &'a mut Size,
    atlas: &'a mut Atlas,
}

impl Letters<'_> {
    /// How far the pen moves.
    pub(crate) fn width(&mut self, text: &str) -> f32 {
        text.chars().map(|letter| self.letter(letter, 0).advance).sum()
    }

    /// Cuts `text[from..]` to `room` pixels; what is cut ends in an ellipsis, or is empty if not even that has room.
    pub(crate) fn shorten(&mut self, text: &mut String, from: usize, room: f32) {
        let mut width = self.width(&text[from..]);
        if width <= room {
            return;
        }
        let ellipsis = self.letter('…', 0).advance;
        while width + ellipsis > room && text.len() > from {
            if let Some(last) = text.pop() {
                width -= self.letter(last, 0).advance;
            }
        }
        if text.len() > from {
            text.truncate(from + text[from..].trim_end().len());
            text.push('…');
        }
    }

    /// Writes from the pen position `x` on the baseline at row `baseline`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in the picture, and its fraction"
    )]
    pub(crate) fn draw(&mut self, canvas: &mut impl Canvas, (mut x, baseline): (f32, i32), text: &str, ink: Ink) {
        for letter in text.chars() {
            let quarters = (x * f32::from(PHASES)).round();
            let phase = quarters.rem_euclid(f32::from(PHASES));
            let pixel = (quarters - phase) / f32::from(PHASES);
            let letter = self.letter(letter, phase as u8);
            let corner = (pixel as i32 + letter.offset.0, baseline + letter.offset.1);
            canvas.stamp(corner, letter.mask, self.atlas, ink);
            x += letter.advance;
        }
    }

    fn letter(&mut self, letter: char, phase: u8) -> Letter {
        if let Some(found) = self.size.letters.get(&(letter, phase)) {
            return *found;
        }
        if self.size.letters.len() >= MAX_LETTERS {
            self.size.letters.clear();
        }
        let id = self.glyph(letter);
        let found = self.size.glyphs.get(&(id, phase)).copied().unwrap_or_else(|| self.rasterise(id, phase));
        self.size.glyphs.insert((id, phase), found);
        self.size.letters.insert((letter, phase), found);
        found
    }

    /// Control characters become spaces; a letter that the font lacks becomes a question mark.
    fn glyph(&self, letter: char) -> GlyphId {
        let letter = if letter.is_control() || letter.is_whitespace() { ' ' } else { letter };
        let found = self.font.glyph_id(letter);
        if found == GlyphId(0) { self.font.glyph_id('?') } else { found }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a letter's size and a share of 0..1")]
    fn rasterise(&mut self, id: GlyphId, phase: u8) -> Letter {
        let advance = self.font.as_scaled(self.size.scale).h_advance(id);
        let position = point(f32::from(phase) / f32::from(PHASES), 0.0);
        let glyph = Glyph { id, scale: self.size.scale, position };
        let Some(outline) = self.font.outline_glyph(glyph) else {
            return Letter { advance, offset: (0, 0), mask: Mask::EMPTY };
        };
        let bounds = outline.px_bounds();
        let size = [bounds.width() as u16, bounds.height() as u16];
        let width = usize::from(size[0]);
        let mask = self.atlas.add(size, |mask| {
            outline.draw(|x, y, share| {
                if let Some(sample) = mask.get_mut(y as usize * width + x as usize) {
                    *sample = (share.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
                }
            });
        });
        Letter { advance, offset: (bounds.min.x as i32, bounds.min.y as i32), mask }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_font_has_the_letters_that_labels_need() {
        let lettering = Lettering::new();
        for letter in "AZaz09#._-% …éßñøĐłşžΑωБяўạ€".chars() {
            assert_ne!(lettering.font.glyph_id(letter).0, 0, "{letter}");
        }
        assert_eq!(lettering.font.glyph_id('漢').0, 0);
    }

    #[test]
    fn digits_are_of_one_width() {
        let (mut lettering, mut atlas) = (Lettering::new(), Atlas::default());
        let mut letters = lettering.size(16.0, &mut atlas);
        let widths: Vec<_> = ('0'..='9').map(|digit| letters.width(&digit.to_string())).collect();
        assert!(widths.iter().all(|width| (width - widths[0]).abs() < 0.1), "{widths:?}");
    }

    #[test]
    fn shortened_text_fits_and_says_so() {
        let (mut lettering, mut atlas) = (Lettering::new(), Atlas::default());
        let mut letters = lettering.size(12.0, &mut atlas);
        let mut text = String::from("a rather long class name");
        letters.shorten(&mut text, 0, 60.0);
        assert!(letters.width(&text) <= 60.0 && text.starts_with("a rath") && text.ends_with('…'), "{text}");
        letters.shorten(&mut text, 0, 1.0);
        assert_eq!(text, "");
    }
}
