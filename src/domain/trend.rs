//! Is a series going down? By the test of Mann and Kendall, which asks only which of two values is greater - one wild
//! run changes little - and the slope of Theil and Sen, the median of the slopes between all pairs.

/// Fewer values say too little.
pub const FEWEST: usize = 8;
/// The most that are looked at, the newest: the work grows with the square.
pub const MOST: usize = 1_000;
/// How probable a chance may be that is taken for a trend: asked hourly, 0.05 would cry wolf every day.
pub const SIGNIFICANCE: f64 = 0.01;

/// What a series does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// Values that were looked at.
    pub points: usize,
    /// Change from one value to the next.
    pub slope: f64,
    /// The probability that values without a trend fall this steadily by chance.
    pub falls: f64,
    /// The same for rising.
    pub rises: f64,
    /// Change over the whole window as a share of its beginning, both on the fitted line; `None`: it begins at 0.
    pub relative: Option<f64>,
}

impl Trend {
    /// Looks at a series, the oldest first. What is not finite is left out, and its place counts. `None`: too few.
    pub fn of(series: &[f64]) -> Option<Trend> {
        let newest = series.get(series.len().saturating_sub(MOST)..).unwrap_or_default();
        let points: Vec<(f64, f64)> =
            newest.iter().enumerate().filter(|(_, y)| y.is_finite()).map(|(x, y)| (x as f64, *y)).collect();
        if points.len() < FEWEST {
            return None;
        }
        let (score, slope) = pairs(&points);
        let deviation = variance(&points).sqrt();
        // Corrected for continuity: half of the step of 2 by which the score changes.
        let chance = |score: f64| if deviation > 0.0 { above((score - 1.0) / deviation) } else { 1.0 };
        let begin = median(points.iter().map(|(x, y)| y - slope * x).collect());
        let (first, last) = (points.first().map_or(0.0, |p| p.0), points.last().map_or(0.0, |p| p.0));
        let start = begin + slope * first;
        let relative = slope * (last - first) / start.abs();
        Some(Trend {
            points: points.len(),
            slope,
            falls: chance(-score),
            rises: chance(score),
            relative: relative.is_finite().then_some(relative),
        })
    }

    /// Whether it falls, beyond chance.
    pub fn is_falling(&self) -> bool {
        self.falls < SIGNIFICANCE && self.slope < 0.0
    }

    /// Whether it rises, beyond chance.
    pub fn is_rising(&self) -> bool {
        self.rises < SIGNIFICANCE && self.slope > 0.0
    }
}

/// Kendall's score, and the median slope.
fn pairs(points: &[(f64, f64)]) -> (f64, f64) {
    let mut score = 0.0;
    let mut slopes = Vec::with_capacity(points.len() * (points.len() - 1) / 2);
    for (index, (x1, y1)) in points.iter().enumerate() {
        for (x2, y2) in points.iter().skip(index + 1) {
            score += match y2.total_cmp(y1) {
                _ if y1 == y2 => 0.0,
                std::cmp::Ordering::Greater => 1.0,
                _ => -1.0,
            };
            // Halved first: the difference of two finite numbers may not be one.
            slopes.push((y2 / 2.0 - y1 / 2.0) / (x2 - x1) * 2.0);
        }
    }
    (score, median(slopes))
}

/// The score's variance without a trend, less what ties take from it.
fn variance(points: &[(f64, f64)]) -> f64 {
    let term = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let mut values: Vec<f64> = points.iter().map(|(_, y)| *y + 0.0).collect();
    values.sort_by(f64::total_cmp);
    let ties: f64 = values.chunk_by(|a, b| a == b).map(|tied| term(tied.len() as f64)).sum();
    (term(points.len() as f64) - ties) / 18.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { at(half) } else { at(half.saturating_sub(1)) / 2.0 + at(half) / 2.0 }
}

/// The share of the normal distribution above `z`: Chebyshev's fit of erfc (Numerical Recipes 6.2), good to 1.2e-7 of
/// the result.
fn above(z: f64) -> f64 {
    const FIT: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x.abs());
    let exponent = FIT.iter().rev().fold(0.0, |sum, factor| sum * t + factor);
    let tail = t * (exponent - x * x).exp() / 2.0;
    if z >= 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    /// S, its variance and p by hand after Mann and Kendall; normal tails from tables.
    #[test]
    fn known_series_have_their_known_figures() {
        assert!(near(above(0.0), 0.5) && near(above(1.959_963_985), 0.025) && near(above(-2.326_347_874), 0.99));
        // Ten values, each less: S = -45, variance 10*9*25/18 = 125, z = 44 / sqrt(125) = 3.935479, p = 4.151e-5.
        let falling: Vec<f64> = (0..10).map(|i| 100.0 - f64::from(i)).collect();
        let trend = Trend::of(&falling).expect("enough");
        assert_eq!((trend.points, trend.slope), (10, -1.0));
        assert!((trend.falls - 4.151e-5).abs() < 1e-7, "{trend:?}");
        assert!(near(trend.relative.unwrap(), -0.09));
        assert!(trend.is_falling() && !trend.is_rising());
        // Ties: 1 1 2 2 3 3 4 4: 28 pairs, 4 of them tied, S = 24; variance (8*7*21 - 4*2*1*9) / 18 = 61.3333.
        let tied = Trend::of(&[1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]).expect("enough");
        assert!(near(tied.rises, above(23.0 / (1104.0_f64 / 18.0).sqrt())), "{tied:?}");
        // Of the 28 slopes 4 are 0, and the median lies between 1/2 and 1/2.
        assert!(near(tied.slope, 0.5), "{tied:?}");
    }

    #[test]
    fn too_few_and_not_numbers_say_nothing_and_one_wild_run_is_no_trend() {
        assert_eq!(Trend::of(&[1.0; 7]), None);
        assert_eq!(Trend::of(&[f64::NAN; 20]), None);
        let flat = Trend::of(&[0.9; 30]).expect("enough");
        assert_eq!((flat.falls, flat.slope, flat.relative), (1.0, 0.0, Some(0.0)));
        let mut wild: Vec<f64> = [0.90, 0.91, 0.89, 0.92].repeat(5);
        wild.push(-1000.0);
        assert!(!Trend::of(&wild).expect("enough").is_falling());
        // Gaps keep their places: the slope is per step of the series.
        let gaps: Vec<f64> = (0..20).map(|i| if i % 2 == 0 { f64::from(-i) } else { f64::INFINITY }).collect();
        assert_eq!(Trend::of(&gaps).map(|t| (t.points, t.slope)), Some((10, -1.0)));
    }

    proptest! {
        #[test]
        fn what_only_falls_falls_and_what_only_rises_does_not(
            steps in prop::collection::vec(1e-6..1e3_f64, FEWEST..60),
            start in -1e6..1e6_f64,
        ) {
            let falling: Vec<f64> = steps.iter().scan(start, |y, step| { *y -= step; Some(*y) }).collect();
            let trend = Trend::of(&falling).expect("enough");
            prop_assert!(trend.is_falling() && !trend.is_rising());
            let rising: Vec<f64> = falling.iter().rev().copied().collect();
            let trend = Trend::of(&rising).expect("enough");
            prop_assert!(!trend.is_falling() && trend.is_rising());
        }

        #[test]
        fn any_numbers_give_probabilities(series in prop::collection::vec(any::<f64>(), 0..40)) {
            if let Some(trend) = Trend::of(&series) {
                prop_assert!((0.0..=1.0).contains(&trend.falls) && (0.0..=1.0).contains(&trend.rises));
                prop_assert!(!(trend.is_falling() && trend.is_rising()));
            }
        }
    }

    #[test]
    fn noise_is_rarely_taken_for_a_trend() {
        let mut state = 42_u64;
        let mut noise = move || {
            // xorshift64*: a fixed sequence, so that the test says the same each time.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64
        };
        let alarms = (0..2_000)
            .filter(|turn| {
                let series: Vec<f64> = (0..10 + turn % 40).map(|_| noise()).collect();
                Trend::of(&series).is_some_and(|t| t.is_falling())
            })
            .count();
        // 1 % of 2,000 is 20; more than twice that does not happen by chance.
        assert!(alarms < 40, "{alarms} of 2,000");
    }
}
