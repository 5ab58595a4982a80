//! Rate limiting or loss? A router that limits its ICMP errors answers a burst, then at a steady rate; a lossy
//! path loses at random. A token bucket is fitted to what a hop answered: the fit is the evidence.

use std::time::Duration;

use serde::Serialize;

/// A limit on answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bucket {
    /// Answers at once from a full bucket.
    pub burst: u32,
    /// Answers a second after that; `None`: the probes ended before a single token came back.
    pub rate: Option<f64>,
    /// Probes whose fate the bucket does not explain, in halves.
    #[serde(skip)]
    pub unexplained: usize,
    /// Probes in all.
    pub probes: usize,
}

/// Rates that are tried: those that routers have as defaults or that people set, answers a second.
const RATES: [f64; 17] =
    [0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 8.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// Fits a bucket to `(when sent, answered)`, in the order sent. `None` where too little was lost, or where no
/// bucket explains what was.
///
/// At least two must have been answered and two lost, and at most one in ten may be unexplained: random loss of
/// the same share does not fit by accident (see the tests).
pub fn fit(probes: &[(Duration, bool)]) -> Option<Bucket> {
    let answered = probes.iter().filter(|(_, answered)| *answered).count();
    let lost = probes.len() - answered;
    if answered < 2 || lost < 2 {
        return None;
    }
    let first_lost = probes.iter().position(|(_, answered)| !*answered)?;
    let span = probes.last()?.0.saturating_sub(probes.first()?.0).as_secs_f64();
    let mut best: Option<Bucket> = None;
    let first = u32::try_from(first_lost).unwrap_or(u32::MAX).min(256);
    // Somebody may have emptied it before: then it begins with nothing.
    for burst in 1..=first.max(1) {
        for rate in std::iter::once(None).chain(RATES.into_iter().map(Some)) {
            // A rate that could not have shown itself in the time there was is no finding.
            if rate.is_some_and(|rate| rate * span < 1.0) {
                continue;
            }
            // Of an emptied bucket nobody knows how near the next token was.
            let begins = if first == 0 { [0.0, 0.25, 0.5, 0.75] } else { [f64::from(burst); 4] };
            let tries = begins.into_iter().map(|begin| mismatches(probes, begin, burst, rate.unwrap_or(0.0)));
            let unexplained = tries.min().unwrap_or(usize::MAX);
            if best.is_none_or(|known| unexplained < known.unexplained) {
                best = Some(Bucket { burst, rate, unexplained, probes: probes.len() });
            }
        }
    }
    best.filter(|bucket| bucket.unexplained * 10 <= probes.len() * 2 && bucket.unexplained < lost)
}

/// How many probes a bucket of this size and rate would have treated otherwise, in halves: what is near the edge,
/// where either fate would do, explains only half. It follows what was seen: a token
/// is taken by each answer, so that one wrong guess does not make all later ones wrong.
fn mismatches(probes: &[(Duration, bool)], begin: f64, burst: u32, rate: f64) -> usize {
    // Queues move arrivals by so much, seconds: near a token's edge either fate is right.
    const JITTER: f64 = 0.003;
    let (mut tokens, mut last, mut wrong) = (begin, None, 0);
    for (at, answered) in probes {
        let passed = last.map_or(0.0, |last| at.saturating_sub(last).as_secs_f64());
        let blur = if last.is_some() { JITTER.min(passed) * rate } else { 0.0 };
        last = Some(*at);
        tokens = (tokens + passed * rate).min(f64::from(burst));
        let (surely, surely_not) = (tokens - blur >= 1.0, tokens + blur < 1.0);
        wrong += if surely || surely_not { 2 * usize::from(surely != *answered) } else { 1 };
        if *answered {
            tokens = (tokens - 1.0).max(0.0);
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(count: u32, gap: Duration, burst: f64, rate: f64) -> Vec<(Duration, bool)> {
        let mut tokens = burst;
        let each = |index: u32| {
            if index > 0 {
                tokens = (tokens + gap.as_secs_f64() * rate).min(burst);
            }
            let answered = tokens >= 1.0;
            tokens -= f64::from(u8::from(answered));
            (gap * index, answered)
        };
        (0..count).map(each).collect()
    }

    #[test]
    fn linux_defaults_are_recognised() {
        let fitted = fit(&limited(20, Duration::from_millis(100), 6.0, 1.0)).unwrap();
        assert_eq!((fitted.burst, fitted.rate), (6, Some(1.0)), "{fitted:?}");
        let burst = fit(&limited(10, Duration::from_micros(50), 6.0, 1.0)).unwrap();
        assert_eq!((burst.burst, burst.rate), (6, None));
        let fast = fit(&limited(60, Duration::from_millis(37), 3.0, 10.0)).unwrap();
        assert_eq!((fast.burst, fast.rate), (3, Some(10.0)), "{fast:?}");
    }

    #[test]
    fn a_bucket_that_was_empty_before_is_recognised() {
        let mut probes = limited(40, Duration::from_millis(100), 6.0, 1.0);
        probes.drain(..7);
        let fitted = fit(&probes).unwrap();
        assert_eq!(fitted.rate, Some(1.0), "{fitted:?}");
    }

    #[test]
    fn random_loss_fits_no_bucket() {
        // A fixed generator: the same losses in every run.
        let mut seed = 7u64;
        let mut fitted = 0;
        for percent in [20, 30, 50, 70] {
            for _ in 0..50 {
                let probes: Vec<(Duration, bool)> = (0..30)
                    .map(|index| {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        (Duration::from_millis(100) * index, (seed >> 33) % 100 >= percent)
                    })
                    .collect();
                fitted += usize::from(fit(&probes).is_some());
            }
        }
        assert!(fitted <= 10, "{fitted} of 200 lossy paths taken for limited ones");
    }

    #[test]
    fn all_answered_or_none_is_no_limit() {
        assert_eq!(fit(&[]), None);
        assert_eq!(fit(&[(Duration::ZERO, true); 9]), None);
        assert_eq!(fit(&[(Duration::ZERO, false); 9]), None);
    }
}
