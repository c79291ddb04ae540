//! Colours of classes and zones.

/// Okabe and Ito's colours, which people with every common kind of colour blindness tell apart ("Color Universal
/// Design", 2008), slightly brightened for video; neighbours differ most in lightness.
const CLASSES: [[u8; 3]; 8] = [
    [235, 94, 20],   // vermillion
    [86, 190, 240],  // sky blue
    [240, 228, 66],  // yellow
    [0, 168, 125],   // bluish green
    [214, 130, 176], // reddish purple
    [40, 120, 205],  // blue
    [242, 165, 10],  // orange
    [225, 225, 230], // light grey
];

/// Behind white text.
pub(crate) const PANEL: [u8; 3] = [16, 20, 28];

/// Text on dark colours.
pub(crate) const WHITE: [u8; 3] = [255, 255, 255];

/// Text on light colours, and the line around boxes.
pub(crate) const BLACK: [u8; 3] = [8, 10, 14];

/// The colour of a class. Classes beyond the palette's end take lighter, then darker kinds of the same colours.
pub(crate) fn rgb(class_id: u32) -> [u8; 3] {
    let colors = u32::try_from(CLASSES.len()).unwrap_or(u32::MAX);
    let base = CLASSES[(class_id % colors) as usize];
    match class_id / colors % 3 {
        0 => base,
        1 => base.map(|value| value / 2 + 127),
        _ => base.map(|value| value / 2 + value / 8),
    }
}

/// The colour of a zone or line.
pub(crate) fn zone(index: usize) -> [u8; 3] {
    const ZONES: [[u8; 3]; 4] = [[120, 94, 240], [0, 190, 170], [220, 60, 140], [240, 190, 40]];
    ZONES[index % ZONES.len()]
}

/// Black or white, whichever reads better on a colour: by its relative luminance (WCAG 2.1), with a bound a little above
/// the one of equal contrast, since white is the clearer on saturated blue.
pub(crate) fn text_on(rgb: [u8; 3]) -> [u8; 3] {
    let linear = |value: u8| (f32::from(value) / 255.0).powf(2.2);
    let luminance = 0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2]);
    if luminance > 0.22 { BLACK } else { WHITE }
}
