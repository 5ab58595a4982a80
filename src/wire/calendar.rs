//! Days since 1970 and dates of the civil (proleptic Gregorian) calendar, in UTC.

use time::{Date, Month};

/// Seconds of a day.
pub const DAY: i64 = 86_400;

/// The Julian day of 1970-01-01.
const EPOCH: i64 = 2_440_588;

/// Days from 1970-01-01 to a date. A month outside 1 to 12 is taken as the nearest, and a day past
/// the month's end runs on into the next, as `mktime` has it. A year outside -9999 to 9999 is taken
/// as the nearest.
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = i32::try_from(year.clamp(-9999, 9999)).unwrap_or(1970);
    let month = u8::try_from(month.clamp(1, 12)).ok().and_then(|month| Month::try_from(month).ok());
    let first = Date::from_calendar_date(year, month.unwrap_or(Month::January), 1).unwrap_or(Date::MIN);
    (i64::from(first.to_julian_day()) - EPOCH).saturating_add(day).saturating_sub(1)
}

/// The date of a day since 1970-01-01; the first or last one of the years -9999 to 9999 for a day
/// outside them.
pub fn date(days: i64) -> Date {
    let bounds = (i64::from(Date::MIN.to_julian_day()), i64::from(Date::MAX.to_julian_day()));
    let day = days.saturating_add(EPOCH).clamp(bounds.0, bounds.1);
    i32::try_from(day).ok().and_then(|day| Date::from_julian_day(day).ok()).unwrap_or(Date::MIN)
}

/// `2026-11-23`, of seconds since 1970.
pub fn date_of(seconds: i64) -> String {
    let date = date(seconds.div_euclid(DAY));
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (seconds, date) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (951_782_400, "2000-02-29"),
            (1_795_392_000, "2026-11-23"),
            (1_795_478_399, "2026-11-23"),
        ] {
            assert_eq!(date_of(seconds), date);
        }
    }

    #[test]
    fn dates_are_days() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2024, 2, 29), 19_782);
        assert_eq!(days(2024, 2, 31), days(2024, 3, 2), "a day past the end runs on");
        assert_eq!(days(2024, 13, 1), days(2024, 12, 1));
    }

    proptest::proptest! {
        #[test]
        fn each_day_comes_back(day in -3_000_000i64..2_900_000) {
            let date = date(day);
            let back = days(date.year().into(), u8::from(date.month()).into(), date.day().into());
            proptest::prop_assert_eq!(back, day);
        }

        #[test]
        fn no_number_panics(day: i64, year: i64, month: i64) {
            let _ = (date(day), date_of(day), days(year, month, day));
        }
    }
}
