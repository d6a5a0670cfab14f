//! The time range of a dashboard, interpreted as a browser does: date math such as `now-1d/d` in
//! the dashboard's time zone.
//!
//! The browser's clock and time zone are parameters.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned, civil};
use serde_json::Value;

use super::dashboard_model::{DashboardModel, PanelModel};

/// The range of a dashboard that does not set one.
const DEFAULT: (&str, &str) = ("now-6h", "now");

/// A time range in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Range {
    /// Its duration.
    pub(super) fn millis(self) -> i64 {
        self.to.saturating_sub(self.from).max(0)
    }
}

/// How a dashboard interprets dates.
pub(super) struct Calendar {
    now: Zoned,
    week_start: Weekday,
    /// The first month of the fiscal year, counted from 0.
    fiscal_start: i64,
}

/// The end of a rounded unit to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

impl Calendar {
    /// The calendar of a dashboard opened at `now`, in milliseconds since 1970, by a browser in the
    /// time zone `local`.
    pub(super) fn of(dashboard: &DashboardModel, now: i64, local: TimeZone) -> Self {
        let zone = match dashboard.timezone.as_str() {
            "" | "browser" => local,
            name if name.eq_ignore_ascii_case("utc") => TimeZone::UTC,
            name => TimeZone::get(name).unwrap_or(local),
        };
        let week_start = match dashboard.week_start.as_str() {
            "monday" => Weekday::Monday,
            "saturday" => Weekday::Saturday,
            _ => Weekday::Sunday,
        };
        let now = Timestamp::from_millisecond(now).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone);
        let fiscal_start = dashboard.fiscal_year_start_month.filter(|month| (0..12).contains(month));
        let mut calendar = Self { now, week_start, fiscal_start: fiscal_start.unwrap_or_default() };
        let delay = format!("-{}", dashboard.timepicker.now_delay);
        if let Some(now) = calendar.math(&delay, calendar.now.clone(), End::First) {
            calendar.now = now;
        }
        calendar
    }

    /// The time range at the dashboard's opening.
    pub(super) fn range(&self, dashboard: &DashboardModel) -> Range {
        let read = |written: &Value, default: &str, end: End| {
            let found = self.moment(written, end).or_else(|| self.moment(&Value::from(default), end));
            millis(&found.unwrap_or_else(|| self.now.clone()))
        };
        let time = &dashboard.time;
        Range { from: read(&time.from, DEFAULT.0, End::First), to: read(&time.to, DEFAULT.1, End::Last) }
    }

    /// The time range of a panel, which may differ from the dashboard's in length or be shifted back.
    pub(super) fn range_of_panel(&self, dashboard: &DashboardModel, panel: &PanelModel) -> Range {
        let mut range = self.range(dashboard);
        let is_relative = |time: &Value| time.as_str().is_none_or(|time| time.starts_with("now"));
        let has_own =
            !panel.time_from.is_empty() && is_relative(&dashboard.time.from) && is_relative(&dashboard.time.to);
        if has_own && let Some(own) = self.last(&panel.time_from) {
            range = own;
        }
        let shift = &panel.time_shift;
        if !shift.is_empty() {
            let shifted = |at: i64, end: End| {
                let at = Timestamp::from_millisecond(at).ok()?.to_zoned(self.now.time_zone().clone());
                self.math(&format!("-{shift}"), at, end).map(|at| millis(&at))
            };
            if let (Some(from), Some(to)) = (shifted(range.from, End::First), shifted(range.to, End::Last)) {
                range = Range { from, to };
            }
        }
        range
    }

    /// The last hours or days: `24h`, `1d/d`, and `+1h` for the next hour.
    fn last(&self, span: &str) -> Option<Range> {
        let is_ahead = span.starts_with('+');
        let written = match span {
            span if span.contains("now") => span.to_string(),
            span if is_ahead => format!("now{span}"),
            span => format!("now-{span}"),
        };
        let end = if is_ahead { End::Last } else { End::First };
        let (at, now) = (millis(&self.moment(&Value::from(written), end)?), millis(&self.now));
        Some(if is_ahead { Range { from: now, to: at } } else { Range { from: at, to: now } })
    }

    /// A time in a dashboard: relative to now, relative to a date (`2026-01-01||+1d`), a date, or
    /// milliseconds.
    fn moment(&self, written: &Value, end: End) -> Option<Zoned> {
        let zone = || self.now.time_zone().clone();
        if let Some(millis) = written.as_i64() {
            return Some(Timestamp::from_millisecond(millis).ok()?.to_zoned(zone()));
        }
        let written = written.as_str()?.trim();
        if let Some(math) = written.strip_prefix("now") {
            return self.math(math, self.now.clone(), end);
        }
        let (date, math) = written.split_once("||").unwrap_or((written, ""));
        let date = if let Ok(millis) = date.parse() {
            Timestamp::from_millisecond(millis).ok()?.to_zoned(zone())
        } else if let Ok(timestamp) = date.parse::<Timestamp>() {
            timestamp.to_zoned(zone())
        } else {
            date.parse::<civil::DateTime>().ok()?.to_zoned(zone()).ok()?
        };
        self.math(math, date, end)
    }

    /// Adds, subtracts and rounds: `-1d/d`.
    fn math(&self, written: &str, start: Zoned, end: End) -> Option<Zoned> {
        let letters: Vec<char> = written.chars().filter(|c| !c.is_whitespace()).collect();
        let mut letters = letters.into_iter().peekable();
        let mut at = start;
        while let Some(operator) = letters.next() {
            let mut digits = String::new();
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let count: i64 = if digits.is_empty() { 1 } else { digits.parse().ok()? };
            let is_fiscal = letters.next_if_eq(&'f').is_some();
            let unit = letters.next()?;
            at = match operator {
                '+' => at.checked_add(span(count, unit)?).ok()?,
                '-' => at.checked_sub(span(count, unit)?).ok()?,
                '/' if count == 1 && is_fiscal => self.rounded_fiscal(at, unit, end)?,
                '/' if count == 1 => self.rounded(&at, unit, end)?,
                _ => return None,
            };
        }
        Some(at)
    }

    fn rounded(&self, at: &Zoned, unit: char, end: End) -> Option<Zoned> {
        let month =
            |month: i8| at.date().with().month(month).day(1).build().ok()?.to_zoned(at.time_zone().clone()).ok();
        let start = match unit {
            'y' => month(1)?,
            'Q' => month((at.month() - 1) / 3 * 3 + 1)?,
            'M' => month(at.month())?,
            'w' => {
                let days = at.weekday().since(self.week_start);
                at.start_of_day().ok()?.checked_sub(Span::new().days(days)).ok()?.start_of_day().ok()?
            }
            'd' => at.start_of_day().ok()?,
            'h' => at.with().minute(0).second(0).subsec_nanosecond(0).build().ok()?,
            'm' => at.with().second(0).subsec_nanosecond(0).build().ok()?,
            's' => at.with().subsec_nanosecond(0).build().ok()?,
            _ => return None,
        };
        ended(start, end, span(1, unit)?)
    }

    /// Rounds to years and quarters of the dashboard's fiscal year; other units are not changed.
    fn rounded_fiscal(&self, at: Zoned, unit: char, end: End) -> Option<Zoned> {
        let length = match unit {
            'y' => 12,
            'Q' => 3,
            _ => return Some(at),
        };
        let past = (i64::from(at.month()) - 1 - self.fiscal_start + 12) % length;
        let start = self.rounded(&at.checked_sub(span(past, 'M')?).ok()?, 'M', End::First)?;
        ended(start, end, span(length, 'M')?)
    }
}

/// The start of a unit, or its last millisecond.
fn ended(start: Zoned, end: End, length: Span) -> Option<Zoned> {
    match end {
        End::First => Some(start),
        End::Last => start.checked_add(length).ok()?.checked_sub(Span::new().milliseconds(1)).ok(),
    }
}

fn span(count: i64, unit: char) -> Option<Span> {
    let none = Span::new();
    let span = match unit {
        'y' => none.try_years(count),
        'Q' => none.try_months(count.checked_mul(3)?),
        'M' => none.try_months(count),
        'w' => none.try_weeks(count),
        'd' => none.try_days(count),
        'h' => none.try_hours(count),
        'm' => none.try_minutes(count),
        's' => none.try_seconds(count),
        _ => return None,
    };
    span.ok()
}

fn millis(at: &Zoned) -> i64 {
    at.timestamp().as_millisecond()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::json::read;
    use super::*;

    /// A Wednesday.
    const NOW: &str = "2026-05-13T10:20:30.400Z";

    fn millis_of(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn range(dashboard: &Value) -> (String, String) {
        let dashboard = read(dashboard.clone());
        let Range { from, to } = Calendar::of(&dashboard, millis_of(NOW), TimeZone::UTC).range(&dashboard);
        let shown = |millis| Timestamp::from_millisecond(millis).unwrap().to_string();
        (shown(from), shown(to))
    }

    #[test]
    fn a_range_is_rounded_at_both_ends() {
        for (from, to, expected_from, expected_to) in [
            ("now/d", "now/d", "2026-05-13T00:00:00Z", "2026-05-13T23:59:59.999Z"),
            ("now-1d/d", "now-1d/d", "2026-05-12T00:00:00Z", "2026-05-12T23:59:59.999Z"),
            ("now/w", "now/w", "2026-05-10T00:00:00Z", "2026-05-16T23:59:59.999Z"),
            ("now/M", "now", "2026-05-01T00:00:00Z", NOW),
            ("now-1M/M", "now-1M/M", "2026-04-01T00:00:00Z", "2026-04-30T23:59:59.999Z"),
            ("now/y", "now/Q", "2026-01-01T00:00:00Z", "2026-06-30T23:59:59.999Z"),
            ("now-2Q", "now+1y", "2025-11-13T10:20:30.4Z", "2027-05-13T10:20:30.4Z"),
            ("now-90m", "now-5s", "2026-05-13T08:50:30.4Z", "2026-05-13T10:20:25.4Z"),
            ("now - 1h / h", "now/m", "2026-05-13T09:00:00Z", "2026-05-13T10:20:59.999Z"),
            ("now-1w-2d", "now/s", "2026-05-04T10:20:30.4Z", "2026-05-13T10:20:30.999Z"),
            ("2026-01-02T03:04:05.006Z", "2026-01-02 04:00:00", "2026-01-02T03:04:05.006Z", "2026-01-02T04:00:00Z"),
            ("2026-01-31||+1M", "1000", "2026-02-28T00:00:00Z", "1970-01-01T00:00:01Z"),
            ("now/fy", "now/fQ", "2026-02-01T00:00:00Z", "2026-07-31T23:59:59.999Z"),
            // A browser uses its default if it cannot read a time.
            ("now/2d", "yesterday", "2026-05-13T04:20:30.4Z", NOW),
            ("now-99999999999y", "now-1x", "2026-05-13T04:20:30.4Z", NOW),
        ] {
            let dashboard = json!({"time": {"from": from, "to": to}, "fiscalYearStartMonth": 1});
            let (found_from, found_to) = range(&dashboard);
            let same = |one: &str, other: &str| millis_of(one) == millis_of(other);
            assert!(same(&found_from, expected_from), "{from}: {found_from}");
            assert!(same(&found_to, expected_to), "{to}: {found_to}");
        }
        assert_eq!(range(&json!({"time": {"from": 5, "to": 7}})).1, "1970-01-01T00:00:00.007Z");
        assert_eq!(range(&json!({"time": {"from": "now/w"}, "weekStart": "monday"})).0, "2026-05-11T00:00:00Z");
        assert_eq!(range(&json!({"timepicker": {"nowDelay": "1m"}})).1, "2026-05-13T10:19:30.4Z");
    }

    #[test]
    fn days_begin_in_the_time_zone_of_the_dashboard_or_the_browser() {
        // Daylight saving time began on this day.
        let now = millis_of("2026-03-29T21:30:00Z");
        let berlin = || TimeZone::get("Europe/Berlin").unwrap();
        let day = |dashboard: DashboardModel| Calendar::of(&dashboard, now, berlin()).range(&dashboard);
        for (zone, from, to) in [
            ("browser", "2026-03-28T23:00:00Z", "2026-03-29T21:59:59.999Z"),
            ("", "2026-03-28T23:00:00Z", "2026-03-29T21:59:59.999Z"),
            ("utc", "2026-03-29T00:00:00Z", "2026-03-29T23:59:59.999Z"),
            ("Asia/Tokyo", "2026-03-29T15:00:00Z", "2026-03-30T14:59:59.999Z"),
        ] {
            let found = day(read(json!({"timezone": zone, "time": {"from": "now/d", "to": "now/d"}})));
            assert_eq!(found, Range { from: millis_of(from), to: millis_of(to) }, "{zone}");
        }
    }

    #[test]
    fn a_panel_may_have_its_own_range_or_shift() {
        let of = |dashboard: &Value, panel: &Value| {
            let (dashboard, panel) = (read(dashboard.clone()), read(panel.clone()));
            Calendar::of(&dashboard, millis_of(NOW), TimeZone::UTC).range_of_panel(&dashboard, &panel)
        };
        let (hour, now) = (3_600_000, millis_of(NOW));
        let short = json!({"time": {"from": "now-5m", "to": "now"}});
        assert_eq!(of(&short, &json!({"timeFrom": "2h"})), Range { from: now - 2 * hour, to: now });
        assert_eq!(of(&short, &json!({"timeFrom": "+1h"})), Range { from: now, to: now + hour });
        let shifted = of(&short, &json!({"timeShift": "1h"}));
        assert_eq!(shifted, Range { from: now - hour - 300_000, to: now - hour });
        assert_eq!(of(&short, &json!({"timeFrom": "?", "timeShift": "?"})), Range { from: now - 300_000, to: now });
        let fixed = json!({"time": {"from": "2026-01-01", "to": "2026-01-02"}});
        assert_eq!(of(&fixed, &json!({"timeFrom": "2h"})), of(&fixed, &json!({})));
    }

    proptest::proptest! {
        #[test]
        fn no_time_causes_a_panic(
            from in "\\PC{0,12}|now[-+/0-9yMwdhmsQf ]{0,12}", to in "now[-+/0-9yMwdhmsQf ]{0,24}", zone in "\\PC{0,8}",
            now in proptest::num::i64::ANY,
        ) {
            let dashboard = json!({"time": {"from": from, "to": to}, "timezone": zone, "fiscalYearStartMonth": 11});
            let dashboard = read(dashboard);
            let calendar = Calendar::of(&dashboard, now, TimeZone::UTC);
            let range = calendar.range_of_panel(&dashboard, &read(json!({"timeFrom": to, "timeShift": from})));
            let _ = range.millis();
        }
    }
}
