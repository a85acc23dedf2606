//! Values of arguments that are checked while the command line is parsed.

use std::time::Duration;

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}

/// `90`, `90s`, `10m`, `1h30m`: at most a week, so that sums cannot overflow.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a time; write it like 90s, 10m or 1h30m");
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let n_digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(n_digits);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let (unit, tail) = match tail.chars().next() {
            None => (1.0, tail),
            Some('s') => (1.0, &tail[1..]),
            Some('m') => (60.0, &tail[1..]),
            Some('h') => (3600.0, &tail[1..]),
            Some(_) => return Err(bad()),
        };
        seconds += number * unit;
        rest = tail;
    }
    if !(1.0..=7.0 * 24.0 * 3600.0).contains(&seconds) {
        return Err(if text.is_empty() { bad() } else { format!("`{text}` is not between a second and a week") });
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        let seconds = |text| duration(text).map(|time| time.as_secs_f64());
        assert_eq!(seconds("90"), Ok(90.0));
        assert_eq!(seconds("1.5m"), Ok(90.0));
        assert_eq!(seconds("1h30m5s"), Ok(5405.0));
        for text in ["", "0", "m", "-5s", "5d", "1e9", "999999999h", "nan", "1..5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
