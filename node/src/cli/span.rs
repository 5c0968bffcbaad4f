//! Spans of time as people write and read them.

use std::time::Duration;

const UNITS: [(char, u64); 5] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400), ('w', 604_800)];
/// A code that is valid for longer than its issuer's certificate makes no sense.
const SPAN_MAX: Duration = Duration::from_secs(365 * 86_400);

/// `90s`, `30m`, `24h`, `7d`, `2w`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a span of time; for example 90s, 30m, 24h, 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let count: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    let span = Duration::from_secs(count.saturating_mul(*seconds));
    match span {
        Duration::ZERO => Err(wrong()),
        span if span > SPAN_MAX => Err(format!("`{text}` is more than a year")),
        span => Ok(span),
    }
}

/// The two largest units that say something: `2 d 3 h`, `45 s`.
pub fn show(span: Duration) -> String {
    let mut rest = span.as_secs();
    let mut parts = Vec::new();
    for (name, seconds) in UNITS[..4].iter().rev() {
        if rest >= *seconds && parts.len() < 2 {
            parts.push(format!("{} {name}", rest / seconds));
        }
        rest %= seconds;
    }
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_shown() {
        for (text, seconds, shown) in [
            ("90s", 90, "1 m 30 s"),
            ("30m", 1_800, "30 m"),
            ("24h", 86_400, "1 d"),
            ("7d", 604_800, "7 d"),
            ("1w", 604_800, "7 d"),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)));
            assert_eq!(show(Duration::from_secs(seconds)), shown);
        }
        assert_eq!(show(Duration::from_secs(93_784)), "1 d 2 h");
        assert_eq!(show(Duration::ZERO), "0 s");
    }

    #[test]
    fn nonsense_is_no_span() {
        for text in ["", "h", "0h", "24", "1.5h", "-1h", "24 h", "9é", "999999999999999999999d", "400d", "99999999999999d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
