//! Moments of wall-clock time as milliseconds since 1970 (UTC, leap seconds left out), and as text (RFC 3339).

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;
/// The last millisecond of the year 9999, beyond which RFC 3339 has no text.
pub const MAX_MS: i64 = 253_402_300_799_999;

/// Milliseconds since 1970, within what has a text; before it, 0.
#[must_use]
pub fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(MAX_MS).min(MAX_MS)
}

/// `2026-11-22T18:57:05.123Z`. What lies outside of 1970 to 9999 is shown as the nearest that does not.
#[must_use]
pub fn text(millis: i64) -> String {
    let millis = millis.clamp(0, MAX_MS);
    let (year, month, day) = date(millis / DAY_MS);
    let of_day = millis % DAY_MS;
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, rest) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:03}Z")
}

/// Reads a date and time with its offset (RFC 3339 section 5.6), or milliseconds since 1970.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|millis| *millis <= MAX_MS);
    }
    let digits = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let byte = |at: usize| text.as_bytes().get(at).copied();
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    let marks = byte(4)? == b'-' && byte(7)? == b'-' && byte(13)? == b':' && byte(16)? == b':';
    let between = matches!(byte(10)?, b'T' | b't' | b' ');
    if !marks || !between || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days(year, month, day);
    if day < 1 || date(days) != (year, month, day) {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, offset) = match rest.strip_prefix('.') {
        Some(after) => {
            let end = after.find(|one: char| !one.is_ascii_digit())?;
            let digits = after.get(..end).filter(|digits| !digits.is_empty())?;
            let millis: String = digits.chars().chain("00".chars()).take(3).collect();
            (millis.parse::<i64>().ok()?, after.get(end..)?)
        }
        None => (0, rest),
    };
    let offset = match offset {
        "Z" | "z" => 0,
        _ => {
            let sign = match offset.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let two = |part: &str| {
                (part.len() == 2 && part.bytes().all(|one| one.is_ascii_digit())).then(|| part.parse::<i64>().ok())?
            };
            let (hours, minutes) = (two(hours)?, two(minutes)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 60 + minutes)
        }
    };
    let seconds = days * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
    Some(seconds * 1000 + fraction).filter(|millis| (0..=MAX_MS).contains(millis))
}

/// Year, month and day of a number of days since 1970-01-01 in the proleptic Gregorian calendar: the well-known
/// reckoning in eras of 400 years that begin in March.
pub(super) fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * from_march + 2) / 5 + 1)
}

/// The inverse of [`date`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_have_their_text() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(1_795_371_825_123), "2026-11-22T18:23:45.123Z");
        assert_eq!(text(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(text(MAX_MS), "9999-12-31T23:59:59.999Z");
        assert_eq!(text(-5), text(0));
    }

    #[test]
    fn a_moment_is_read_as_it_may_be_written() {
        for (written, millis) in [
            ("0", 0),
            ("1795371825123", 1_795_371_825_123),
            ("2026-11-22T18:23:45.123Z", 1_795_371_825_123),
            ("2026-11-22t18:23:45.1239z", 1_795_371_825_123),
            ("2026-11-22 20:23:45+02:00", 1_795_371_825_000),
            ("2026-11-22T12:53:45.5-05:30", 1_795_371_825_500),
        ] {
            assert_eq!(parse(written), Some(millis), "{written}");
        }
        for nonsense in [
            "",
            "yesterday",
            "2026-11-22",
            "2026-11-22T18:23:45",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T18:23:45.Z",
            "2026-11-22T18:23:45+2:00",
            "2026-11-22T18:23:45Zulu",
            "-5",
            "999999999999999999",
            "1969-12-31T23:59:59Z",
            "2026-11-22T18:23:45.5",
            "２０２６-11-22T18:23:45Z",
        ] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(millis in 0..=MAX_MS) {
            prop_assert_eq!(parse(&text(millis)), Some(millis));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
