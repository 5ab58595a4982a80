//! `-m time`: when a rule holds.

use std::fmt;

use crate::wire::calendar;

/// The last second that `time` can name (`INT_MAX`), which stands for "for ever".
const FOR_EVER: u32 = 0x7fff_ffff;
const DAY: u32 = 86_400;

/// `-m time`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeTest {
    /// `--datestart`, seconds since 1970 (in the time zone that the test uses).
    pub date_start: u32,
    /// `--datestop`, likewise, included.
    pub date_stop: u32,
    /// `--timestart`, seconds of the day.
    pub day_start: u32,
    /// `--timestop`, likewise, included.
    pub day_stop: u32,
    /// `--monthdays`, bit n for day n.
    pub month_days: u32,
    /// `--weekdays`, bit n for day n, Monday is 1.
    pub week_days: u8,
    /// `--contiguous`: a span over midnight belongs to the day it begins on.
    pub contiguous: bool,
    /// `--kerneltz`: in the kernel's time zone rather than in UTC.
    pub kernel_tz: bool,
}

impl Default for TimeTest {
    fn default() -> Self {
        Self {
            date_start: 0,
            date_stop: FOR_EVER,
            day_start: 0,
            day_stop: DAY - 1,
            month_days: 0xffff_fffe,
            week_days: 0xfe,
            contiguous: false,
            kernel_tz: false,
        }
    }
}

impl TimeTest {
    /// Names of the days, Monday first.
    pub const DAYS: [&'static str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

    /// Whether it holds at this second since 1970 (`net/netfilter/xt_time.c`, `time_mt`); with
    /// `--kerneltz` the caller adds the kernel's offset first.
    pub fn holds(&self, now: u64) -> bool {
        let Ok(now) = u32::try_from(now) else { return false };
        if now < self.date_start || now > self.date_stop {
            return false;
        }
        let second = now % DAY;
        let mut day = now;
        if self.day_start < self.day_stop {
            if second < self.day_start || second > self.day_stop {
                return false;
            }
        } else {
            if second < self.day_start && second > self.day_stop {
                return false;
            }
            // The kernel takes the day back once, before it looks at the date.
            if self.contiguous && second <= self.day_stop {
                day = day.saturating_sub(DAY);
            }
        }
        let days = day / DAY;
        // 1 January 1970 was a Thursday.
        let weekday = (days + 3) % 7 + 1;
        if self.week_days & (1 << weekday) == 0 {
            return false;
        }
        self.month_days == 0xffff_fffe || self.month_days & (1 << calendar::date(days.into()).day()) != 0
    }

    /// `2024-01-31T10:00:00`, or less of it, in seconds since 1970 (`time_parse_date`).
    pub fn date(text: &str) -> Option<u32> {
        let (date, time) = text.split_once(['T', ' ']).map_or((text, None), |(d, t)| (d, Some(t)));
        let mut parts = date.split('-').map(|part| part.parse::<u32>().ok());
        let year = parts.next()??;
        let month = parts.next().unwrap_or(Some(1))?;
        let day = parts.next().unwrap_or(Some(1))?;
        if parts.next().is_some() || !(1970..=2038).contains(&year) || !(1..=12).contains(&month) {
            return None;
        }
        if !(1..=31).contains(&day) {
            return None;
        }
        let second = time.map_or(Some(0), Self::clock)?;
        u32::try_from(calendar::days(year.into(), month.into(), day.into()))
            .ok()?
            .checked_mul(DAY)?
            .checked_add(second)
            .filter(|n| *n <= FOR_EVER)
    }

    /// `hh:mm[:ss]` in seconds of the day (`time_parse_minutes`).
    pub fn clock(text: &str) -> Option<u32> {
        let mut parts = text.split(':').map(|part| part.parse::<u32>().ok());
        let (hour, minute) = (parts.next()??, parts.next().unwrap_or(Some(0))?);
        let second = parts.next().unwrap_or(Some(0))?;
        let fits = parts.next().is_none() && hour < 24 && minute < 60 && second < 60;
        fits.then_some(hour * 3600 + minute * 60 + second)
    }

    /// Days of a week by name or number, as bits.
    pub fn week_days_of(text: &str) -> Option<u8> {
        text.split(',').try_fold(0, |bits, word| {
            let number = word.parse::<u8>().ok().filter(|n| (1..=7).contains(n));
            let lower = word.to_ascii_lowercase();
            let named = || {
                let fits = |day: &str| {
                    lower.len() >= 2 && lower.is_char_boundary(2) && day[..2].eq_ignore_ascii_case(&lower[..2])
                };
                (1u8..).zip(Self::DAYS).find(|(_, day)| fits(day)).map(|(n, _)| n)
            };
            number.or_else(named).map(|day| bits | 1 << day)
        })
    }

    /// Days of a month by number, as bits.
    pub fn month_days_of(text: &str) -> Option<u32> {
        text.split(',').try_fold(0, |bits, word| {
            let day = word.parse::<u32>().ok().filter(|n| (1..=31).contains(n))?;
            Some(bits | 1 << day)
        })
    }
}

fn stamp(seconds: u32) -> String {
    format!("{}T{}", calendar::date_of(seconds.into()), clock(seconds % DAY))
}

fn clock(second: u32) -> String {
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

impl fmt::Display for TimeTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Self::default();
        let mut parts = Vec::new();
        if (self.day_start, self.day_stop) != (default.day_start, default.day_stop) {
            parts.push(format!("--timestart {} --timestop {}", clock(self.day_start), clock(self.day_stop)));
        }
        if self.month_days != default.month_days {
            let days: Vec<_> = (1..32u32).filter(|n| self.month_days & (1 << n) != 0).map(|n| n.to_string()).collect();
            parts.push(format!("--monthdays {}", days.join(",")));
        }
        if self.week_days != default.week_days {
            let days: Vec<_> =
                (1..8usize).filter(|n| self.week_days & (1 << n) != 0).map(|n| Self::DAYS[n - 1]).collect();
            parts.push(format!("--weekdays {}", days.join(",")));
        }
        if self.date_start != 0 {
            parts.push(format!("--datestart {}", stamp(self.date_start)));
        }
        parts.push(format!("--datestop {}", stamp(self.date_stop)));
        parts.extend(self.kernel_tz.then(|| "--kerneltz".to_owned()));
        parts.extend(self.contiguous.then(|| "--contiguous".to_owned()));
        f.write_str(&parts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_hours() {
        // 2024-03-01 is a Friday; 2024 is a leap year.
        let noon = u64::from(TimeTest::date("2024-03-01T12:00:00").unwrap());
        assert_eq!(noon, 1_709_294_400);
        let friday = TimeTest { week_days: TimeTest::week_days_of("Fri").unwrap(), ..TimeTest::default() };
        assert!(friday.holds(noon) && !friday.holds(noon + 86_400));
        let first = TimeTest { month_days: TimeTest::month_days_of("1").unwrap(), ..TimeTest::default() };
        assert!(first.holds(noon) && !first.holds(noon - 86_400));
        let work = TimeTest { day_start: 9 * 3600, day_stop: 12 * 3600, ..TimeTest::default() };
        assert!(work.holds(noon) && !work.holds(noon + 1), "the stop is included");
        let night = TimeTest { day_start: 22 * 3600, day_stop: 6 * 3600, ..friday };
        let (late, early) = (noon + 11 * 3600, noon + 15 * 3600);
        assert!(night.holds(late) && !night.holds(early), "Saturday's early hours are not Friday's");
        let night = TimeTest { contiguous: true, ..night };
        assert!(night.holds(late) && night.holds(early), "with --contiguous they are");
        let year = TimeTest { date_start: TimeTest::date("2024-03-02").unwrap(), ..TimeTest::default() };
        assert!(!year.holds(noon) && year.holds(noon + 43_200));
    }
}
