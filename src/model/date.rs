//! Dates in the Gregorian calendar.

/// Milliseconds since 1970 in RFC 3339 format, to the second. `None` before 1970 and after the year 9999, which the
/// format cannot express.
pub(crate) fn rfc3339(millis: i64) -> Option<String> {
    let seconds = u64::try_from(millis).ok()? / 1_000;
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    (year <= 9_999).then(|| {
        let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    })
}

/// Year, month and day from the days since 1970. Years begin in March here, so that a leap day ends its year, and an
/// era of 400 years always has the same number of days.
const fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + (month <= 2) as u64, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn times_outside_the_format_have_no_date() {
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(rfc3339(253_402_300_799_999).as_deref(), Some("9999-12-31T23:59:59Z"));
        for millis in [-1, 253_402_300_800_000, i64::MAX] {
            assert_eq!(rfc3339(millis), None, "{millis}");
        }
    }

    /// Every day until 2400 contains all leap years of an era.
    #[test]
    fn dates_are_those_of_another_implementation() {
        for day in 0..157_000 {
            let seconds = day * 86_400 + day % 86_400;
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let expected = humantime::format_rfc3339_seconds(time).to_string();
            assert_eq!(rfc3339(i64::try_from(seconds).unwrap() * 1_000), Some(expected));
        }
    }
}
