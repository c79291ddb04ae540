//! Text from the embedded font: letters are rasterised once for each size and kept.

use std::collections::HashMap;

use ab_glyph::{Font as _, FontRef, Glyph, GlyphId, PxScale, ScaleFont as _, point};

use crate::draw::{self, Ink, Mask};
use crate::media::I420;

/// Letters begin at whole quarters of a pixel: finer than the eye tells, coarse enough to keep few copies.
const PHASES: u8 = 4;

/// Sizes kept at once.
const MAX_SIZES: usize = 4;

/// Letters kept for a size: more than any script's alphabet; beyond it the store starts afresh.
const MAX_LETTERS: usize = 2048;

/// The font and its rasterised letters.
#[derive(Debug)]
pub(crate) struct Lettering {
    font: FontRef<'static>,
    sizes: Vec<Size>,
}

impl Lettering {
    /// The embedded font, with no letters yet.
    #[expect(clippy::expect_used, reason = "the file is part of this crate, and a test reads it")]
    pub(crate) fn new() -> Self {
        let font =
            FontRef::try_from_slice(include_bytes!("font/inter-labels.otf")).expect("the embedded font is whole");
        Self { font, sizes: Vec::new() }
    }

    /// Letters of `em` pixels.
    pub(crate) fn size(&mut self, em: f32) -> Letters<'_> {
        let at = self.sizes.iter().position(|size| size.em == em).unwrap_or_else(|| {
            if self.sizes.len() >= MAX_SIZES {
                self.sizes.remove(0);
            }
            let units = self.font.units_per_em().unwrap_or(1000.0);
            let scale = PxScale::from(em * self.font.height_unscaled() / units);
            self.sizes.push(Size { em, scale, letters: HashMap::new(), coverage: Vec::new() });
            self.sizes.len() - 1
        });
        Letters { font: &self.font, size: &mut self.sizes[at] }
    }
}

#[derive(Debug)]
struct Size {
    em: f32,
    scale: PxScale,
    letters: HashMap<(char, u8), Letter>,
    /// Masks of all letters, one after the other.
    coverage: Vec<u8>,
}

/// One letter at one phase.
#[derive(Debug, Clone, Copy)]
struct Letter {
    advance: f32,
    /// Of the mask, from the pen's whole pixel on the baseline.
    offset: (i32, i32),
    width: usize,
    start: usize,
    end: usize,
}

/// Letters of one size.
pub(crate) struct Letters<'a> {
    font: &'a FontRef<'static>,
    size: &'a mut Size,
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
    pub(crate) fn draw(&mut self, picture: &mut I420, (mut x, baseline): (f32, i32), text: &str, ink: Ink) {
        for letter in text.chars() {
            let quarters = (x * f32::from(PHASES)).round();
            let phase = quarters.rem_euclid(f32::from(PHASES));
            let pixel = (quarters - phase) / f32::from(PHASES);
            let letter = self.letter(letter, phase as u8);
            let corner = (pixel as i32 + letter.offset.0, baseline + letter.offset.1);
            let mask = Mask { width: letter.width, coverage: &self.size.coverage[letter.start..letter.end] };
            draw::stamp(picture, corner, mask, ink);
            x += letter.advance;
        }
    }

    fn letter(&mut self, letter: char, phase: u8) -> Letter {
        if let Some(found) = self.size.letters.get(&(letter, phase)) {
            return *found;
        }
        if self.size.letters.len() >= MAX_LETTERS {
            self.size.letters.clear();
            self.size.coverage.clear();
        }
        let made = self.rasterise(letter, phase);
        self.size.letters.insert((letter, phase), made);
        made
    }

    /// Control characters become spaces; a letter that the font lacks becomes a question mark.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a letter's size and a share of 0..1")]
    fn rasterise(&mut self, letter: char, phase: u8) -> Letter {
        let letter = if letter.is_control() || letter.is_whitespace() { ' ' } else { letter };
        let found = self.font.glyph_id(letter);
        let id = if found == GlyphId(0) { self.font.glyph_id('?') } else { found };
        let advance = self.font.as_scaled(self.size.scale).h_advance(id);
        let position = point(f32::from(phase) / f32::from(PHASES), 0.0);
        let start = self.size.coverage.len();
        let glyph = Glyph { id, scale: self.size.scale, position };
        let Some(outline) = self.font.outline_glyph(glyph) else {
            return Letter { advance, offset: (0, 0), width: 0, start, end: start };
        };
        let bounds = outline.px_bounds();
        let (width, height) = (bounds.width() as usize, bounds.height() as usize);
        let end = start + width * height;
        self.size.coverage.resize(end, 0);
        let mask = &mut self.size.coverage[start..];
        outline.draw(|x, y, share| {
            if let Some(sample) = mask.get_mut(y as usize * width + x as usize) {
                *sample = (share.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
            }
        });
        Letter { advance, offset: (bounds.min.x as i32, bounds.min.y as i32), width, start, end }
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
        let mut lettering = Lettering::new();
        let mut letters = lettering.size(16.0);
        let widths: Vec<_> = ('0'..='9').map(|digit| letters.width(&digit.to_string())).collect();
        assert!(widths.iter().all(|width| (width - widths[0]).abs() < 0.1), "{widths:?}");
    }

    #[test]
    fn shortened_text_fits_and_says_so() {
        let mut lettering = Lettering::new();
        let mut letters = lettering.size(12.0);
        let mut text = String::from("a rather long class name");
        letters.shorten(&mut text, 0, 60.0);
        assert!(letters.width(&text) <= 60.0 && text.starts_with("a rath") && text.ends_with('…'), "{text}");
        letters.shorten(&mut text, 0, 1.0);
        assert_eq!(text, "");
    }
}
