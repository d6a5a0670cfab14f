//! Generates a realistic load in the format of Clipper's reports, for the demo.
//!
//! The same seed generates the same lines for the same times.

use std::f64::consts::TAU;
use std::fmt::Write as _;

use fastrand::Rng;

use crate::model::reports::{COUNTER, DEMO_TAG, INTERVAL, LATENCY, THROUGHPUT, written_name};

/// The drift of reports against the clock, in milliseconds per interval.
const DRIFT: i64 = 4;
/// The time from one report to the next, in milliseconds.
pub(crate) const STEP: i64 = INTERVAL + DRIFT;
/// The number of samples that Clipper keeps in a histogram.
const SAMPLES: f64 = 2056.0;
/// The number of reports in a cycle of 40 minutes, which includes a pause and a stretch of zeros.
const CYCLE: i64 = 160;
/// A day, in milliseconds.
const DAY: i64 = 86_400_000;
/// The reports that the pausing model skips in each cycle: three minutes.
const PAUSE: std::ops::Range<i64> = 100..112;
/// The reports with zeros in each cycle: two minutes.
const ZEROS: std::ops::Range<i64> = 40..48;

/// The parameters of a load.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// The models' names, as in Clipper's file.
    pub(crate) models: Vec<String>,
    /// Predictions per second and model.
    pub(crate) rate: f64,
    /// The same seed generates the same load.
    pub(crate) seed: u64,
}

/// Lines and the number of their points.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Lines of the line protocol.
    pub(crate) lines: String,
    /// The number of points.
    pub(crate) points: usize,
}

impl Load {
    /// Adds the report for the time `at` (milliseconds since 1970) to a batch.
    pub(crate) fn report(&self, at: i64, batch: &mut Batch) {
        let turn = at.div_euclid(STEP);
        for (index, model) in self.models.iter().enumerate() {
            if index + 1 == self.models.len() && PAUSE.contains(&turn.rem_euclid(CYCLE)) {
                continue;
            }
            self.model(index, model, at, turn, batch);
        }
    }

    fn model(&self, index: usize, model: &str, at: i64, turn: i64, batch: &mut Batch) {
        let name = written_name(model);
        let time = at.saturating_mul(1_000_000);
        // The fraction decides how often there is one more, so that a low rate is not rounded to zero.
        let expected = self.rate_at(index, turn) * seconds(STEP);
        let has_one_more = self.chance(index, turn, 3).f64() < expected.fract();
        let count = expected.floor() + f64::from(u8::from(has_one_more));
        let mean_of = |reports: i64| {
            let sum: f64 = (0..reports).map(|back| self.rate_at(index, turn - back)).sum();
            #[expect(clippy::cast_precision_loss, reason = "sixty at most")]
            let reports = reports as f64;
            sum / reports
        };
        let (rate, one, five, fifteen) = (count / seconds(STEP), mean_of(4), mean_of(20), mean_of(60));
        let lines = &mut batch.lines;
        let _ = writeln!(lines, "{name}{COUNTER},{DEMO_TAG}=true value={count} {time}");
        let _ = writeln!(
            lines,
            "{name}{THROUGHPUT},{DEMO_TAG}=true,units=events-per-second \
             rate={rate:.3},one_min={one:.3},five_min={five:.3},fifteen_min={fifteen:.3} {time}"
        );
        let latency = self.latency(index, turn, count);
        let _ = writeln!(lines, "{name}{LATENCY},{DEMO_TAG}=true {latency} {time}");
        batch.points += 3;
    }

    /// A random generator for one model, report and purpose.
    fn chance(&self, index: usize, turn: i64, what: u64) -> Rng {
        let index = u64::try_from(index).unwrap_or_default();
        let mixed = [index + 1, turn.unsigned_abs(), what].iter().fold(self.seed, |mixed, part| {
            (mixed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15)).rotate_left(23).wrapping_mul(0xff51_afd7_ed55_8ccd)
        });
        Rng::with_seed(mixed)
    }

    /// Predictions per second: a daily rhythm with noise and a peak in the afternoon.
    fn rate_at(&self, index: usize, turn: i64) -> f64 {
        if index == 0 && ZEROS.contains(&turn.rem_euclid(CYCLE)) {
            return 0.0;
        }
        let of_day = seconds((turn * STEP).rem_euclid(DAY)) / seconds(DAY);
        let rhythm = 1.0 - 0.45 * (TAU * (of_day - 0.1)).cos();
        let noise = 0.9 + 0.2 * self.chance(index, turn, 0).f64();
        self.rate * rhythm * noise
    }

    /// The fields of a latency report in microseconds; all zero without predictions.
    fn latency(&self, index: usize, turn: i64, count: f64) -> String {
        if count < 1.0 {
            return "size=0,min=0,max=0,mean=0,std=0,p50=0,p95=0,p99=0".into();
        }
        let mut chance = self.chance(index, turn, 1);
        // Every model has its own speed, and the second one is slow.
        let base = if index == 1 { 5_200.0 } else { 900.0 + 220.0 * self.chance(index, 0, 2).f64() };
        let typical = base * (0.92 + 0.16 * chance.f64());
        let spike = if chance.u32(0..90) == 0 { 4.0 + 5.0 * chance.f64() } else { 1.0 };
        let p95 = typical * (1.7 + 0.3 * chance.f64()) * spike.sqrt();
        let p99 = typical * (2.3 + 0.6 * chance.f64()) * spike;
        let max = p99 * (1.1 + 0.5 * chance.f64());
        let (min, mean) = (typical * 0.35, typical * 1.15 * spike.sqrt().sqrt());
        let (std, size) = (mean * 0.4, count.min(SAMPLES));
        format!(
            "size={size},min={min:.0},max={max:.0},mean={mean:.1},std={std:.1},p50={typical:.0},p95={p95:.0},p99={p99:.0}"
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "a day has 27 bits of milliseconds")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(load: &Load, reports: i64) -> String {
        let mut batch = Batch::default();
        for turn in 0..reports {
            load.report(1_790_000_000_000 + turn * STEP, &mut batch);
        }
        assert_eq!(batch.points, batch.lines.lines().count());
        batch.lines
    }

    fn load(seed: u64) -> Load {
        Load { models: vec!["m1".into(), "slow one".into()], rate: 8.0, seed }
    }

    #[test]
    fn the_load_depends_on_the_seed() {
        assert_eq!(lines(&load(1), 200), lines(&load(1), 200));
        assert_ne!(lines(&load(1), 200), lines(&load(2), 200));
    }

    #[test]
    fn the_counts_of_a_low_rate_add_up_to_it() {
        let rare = Load { rate: 0.01, ..load(1) };
        let counts = lines(&rare, 4_000);
        let count = |line: &str| {
            line.strip_prefix("slow_one_prediction_counter,")?.split(['=', ' ']).nth(3)?.parse::<f64>().ok()
        };
        let sum: f64 = counts.lines().filter_map(count).sum();
        // A daily rhythm and a pause in each cycle change it.
        assert!((300.0..900.0).contains(&sum), "{sum}");
    }

    #[test]
    fn every_line_is_tagged_and_every_phase_occurs() {
        let lines = lines(&load(1), CYCLE);
        assert!(lines.lines().all(|line| line.contains(DEMO_TAG)));
        assert!(lines.contains("m1_prediction_counter,clipper_metrics_demo=true value=0 "), "zeros");
        assert!(lines.contains("size=0,min=0"), "zeros as latencies");
        let of = |name: &str| lines.lines().filter(|line| line.starts_with(&format!("{name}{COUNTER}"))).count();
        assert!(of("slow_one") < of("m1"), "one model pauses");
    }
}
