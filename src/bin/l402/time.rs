//! Times as people write them, in UTC.

use l402::{Clock as _, SystemClock};

use crate::exit::{Failure, USAGE};

const DAY: u64 = 86_400;

/// Unix seconds.
pub(crate) fn now() -> u64 {
    let since = SystemClock.now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// A time to come: a date, unix seconds, or how long from now.
pub(crate) fn until(text: &str, now: u64) -> Result<u64, Failure> {
    seconds(text).and_then(|seconds| now.checked_add(seconds)).or_else(|| at(text)).ok_or_else(|| bad(text))
}

/// A time that was: a date, unix seconds, or how long ago.
pub(crate) fn since(text: &str, now: u64) -> Result<u64, Failure> {
    seconds(text).map(|seconds| now.saturating_sub(seconds)).or_else(|| at(text)).ok_or_else(|| bad(text))
}

fn bad(text: &str) -> Failure {
    let what = format!("`{text}` is no time: write 2030-01-31, 2030-01-31T12:00:00Z, 12h or 7d");
    Failure::new(USAGE, what)
}

/// A duration such as `7d`.
fn seconds(text: &str) -> Option<u64> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => DAY,
        'w' => 7 * DAY,
        _ => return None,
    };
    number(&text[..text.len() - 1])?.checked_mul(unit)
}

/// Unix seconds as such, or a date of RFC 3339.
fn at(text: &str) -> Option<u64> {
    if let Some(unix) = number(text) {
        return Some(unix);
    }
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let mut date = date.split('-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.strip_suffix('Z')?.split(':').map(number);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next().unwrap_or(Some(0))?);
    let is_date = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && date.next().is_none()
        && time.next().is_none();
    if !is_date || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let months: u64 = (1..month).map(|month| days_of(year, month)).sum();
    Some((years + months + day - 1) * DAY + hour * 3_600 + minute * 60 + second)
}

/// A date of RFC 3339.
pub(crate) fn date(unix: u64) -> String {
    let (mut days, second) = (unix / DAY, unix % DAY);
    let mut year = 1970;
    loop {
        let of_year = if is_leap(year) { 366 } else { 365 };
        if days < of_year {
            break;
        }
        if year == 9999 {
            return "never".to_owned();
        }
        (days, year) = (days - of_year, year + 1);
    }
    let mut month = 1;
    while days >= days_of(year, month) {
        (days, month) = (days - days_of(year, month), month + 1);
    }
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

fn is_leap(year: u64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_written_alike() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_900_000_000, "2030-03-17T17:46:40Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!((date(unix).as_str(), at(text)), (text, Some(unix)));
        }
        assert_eq!(date(u64::MAX), "never");
        assert_eq!((at("2000-03-01"), at("2000-03-01T00:01Z")), (Some(951_868_800), Some(951_868_860)));
    }

    #[test]
    fn durations_count_from_now() {
        assert_eq!((until("2h", 100).unwrap(), since("1m", 100).unwrap()), (7_300, 40));
        assert_eq!((until("500", 100).unwrap(), since("1w", 100).unwrap()), (500, 0));
        for text in [
            "",
            "h",
            "-1h",
            "1y",
            "1.5h",
            "2001-02-29",
            "2001-13-01",
            "2001-1-1T24:00Z",
            "2001-01-01T00:00",
            "99999999999999999999d",
            "ü",
        ] {
            assert!(until(text, 0).is_err(), "{text}");
        }
    }
}
