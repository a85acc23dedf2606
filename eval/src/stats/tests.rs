use nanochat_engine::rng::Rng;

use super::bootstrap::*;
use super::*;

/// Crates whose true share varies: hole by hole, what A and B got right.
struct World {
    n_crates: usize,
    n_holes: usize,
    /// Share of holes that A gets right.
    a: f64,
    /// Share of holes that A alone and B alone get right.
    only: (f64, f64),
    /// Standard deviation between crates, of both.
    between: f64,
}

impl World {
    /// (crate, A, B) of each hole.
    fn draw(&self, rng: &mut Rng) -> Vec<(String, bool, bool)> {
        let mut holes = Vec::new();
        for i in 0..self.n_crates {
            let of_crate = self.n_holes * (i + 1) / self.n_crates - self.n_holes * i / self.n_crates;
            let shift = self.between * f64::from(rng.normal());
            let (only_a, only_b) =
                ((self.only.0 + shift / 2.0).clamp(0.0, 0.5), (self.only.1 - shift / 2.0).clamp(0.0, 0.5));
            let both = (self.a - self.only.0).max(0.0);
            for _ in 0..of_crate {
                let u = f64::from(rng.uniform());
                let (a, b) = (u < both + only_a, u < both || (both + only_a..both + only_a + only_b).contains(&u));
                holes.push((format!("crate{i}"), a, b));
            }
        }
        holes
    }

    fn difference(&self, rng: &mut Rng, seed: u64) -> Value {
        let holes = self.draw(rng);
        let figure = |(_, a, b): &(String, bool, bool)| f64::from(u8::from(*a)) - f64::from(u8::from(*b));
        let differences: Vec<_> = holes.iter().map(|hole| (hole.0.as_str(), figure(hole))).collect();
        difference(&differences, seed)
    }
}

fn near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() < tolerance, "{found} instead of {expected}");
}

#[test]
fn wilson_agrees_with_newcombes_examples() {
    // Newcombe 1998 (Statistics in Medicine 17, 857), table I, method 3
    for (successes, n, low, high) in
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
    {
        let interval = wilson(successes, n);
        near(interval.0, low, 6e-5);
        near(interval.1, high, 6e-5);
    }
    assert_eq!(wilson(0, 0), (0.0, 1.0));
}

#[test]
fn mcnemar_is_the_binomial_test_of_the_holes_that_differ() {
    let of = |a: usize, b: usize| {
        let pairs = std::iter::repeat_n((true, false), a).chain(std::iter::repeat_n((false, true), b));
        McNemar::of(pairs.chain([(true, true), (false, false)]))
    };
    assert_eq!(of(0, 0), McNemar { only_a: 0, only_b: 0, p: 1.0 });
    near(of(0, 5).p, 2.0 / 32.0, 1e-12);
    near(of(1, 9).p, 2.0 * 11.0 / 1024.0, 1e-12);
    near(of(2, 10).p, 2.0 * 79.0 / 4096.0, 1e-12);
    near(of(7, 7).p, 1.0, 1e-12);
    near(of(3, 4).p, 1.0, 1e-12);
    // Beyond f64's 2⁻ⁿ; the normal approximation, continuity corrected: z = (|1100−1000|−1)/√2100 = 2.160, p = 0.0308
    near(of(1100, 1000).p, 0.0308, 2e-4);
    assert!(of(3000, 0).p < 1e-300);
}

#[test]
fn students_quantile_and_the_normal_are_those_of_the_tables() {
    for (degrees, t) in [(1.0, 12.706), (2.0, 4.303), (3.0, 3.182), (5.0, 2.571), (10.0, 2.228), (47.0, 2.012)] {
        near(student::t_975(degrees), t, 0.002 * t);
    }
    for (x, p) in [(-1.959_964, 0.025), (0.0, 0.5), (1.0, 0.841_345), (-3.0, 0.001_350), (-40.0, 0.0)] {
        near(student::normal_cdf(x), p, 1e-6);
    }
}

#[test]
fn one_cluster_gives_wilsons_interval() {
    let observations: Vec<_> = (0..10).map(|i| ("a.rs", if i < 8 { 1.0 } else { 0.0 })).collect();
    let Value { value, low, high } = mean(&observations, 1);
    assert_eq!(value, 0.8);
    near(low, 0.4902, 1e-4); // by hand
    near(high, 0.9433, 1e-4);
}

#[test]
fn a_share_of_nothing_but_successes_is_not_certain() {
    let observations: Vec<_> = (0..20).map(|i| (if i % 2 == 0 { "a.rs" } else { "b.rs" }, 1.0)).collect();
    let Value { value, low, high } = mean(&observations, 1);
    assert_eq!((value, high), (1.0, 1.0));
    near(low, 0.8389, 1e-3); // 1 / (1 + z²/20)
}

#[test]
fn two_systems_that_agree_everywhere_are_not_surely_equal() {
    let differences: Vec<_> = (0..50).map(|i| (if i < 25 { "a" } else { "b" }, 0.0)).collect();
    let Value { value, low, high } = difference(&differences, 1);
    assert_eq!(value, 0.0);
    near(high, 1.96 / 52.0, 1e-4); // ± z √1 / (50 + 2)
    near(low, -high, 1e-12);
}

#[test]
fn clusters_are_drawn_whole() {
    // Two clusters, all success in one, none in the other: their mean can be 0, 1/2 or 1.
    let observations: Vec<_> = (0..200).map(|i| if i < 100 { ("a.rs", 1.0) } else { ("b.rs", 0.0) }).collect();
    let Value { value, low, high } = mean(&observations, 1);
    assert_eq!((value, low, high), (0.5, 0.0, 1.0));
}

#[test]
fn the_order_of_observations_and_of_clusters_does_not_matter() {
    let mut rng = Rng::new(3);
    let names = ["d", "a", "c", "b", "e"];
    let mut observations: Vec<_> = (0..60).map(|i| (names[i % 5], f64::from(rng.below(8) as u32))).collect();
    let (before, quantiles_before) = (mean(&observations, 7), quantiles(&observations, &[0.5, 0.9], 7));
    rng.shuffle(&mut observations);
    assert_eq!(mean(&observations, 7), before);
    assert_eq!(quantiles(&observations, &[0.5, 0.9], 7), quantiles_before);
}

#[test]
fn quantiles_are_observed_figures() {
    let observations: Vec<_> = (1..=100).map(|i| ("a.rs", f64::from(i))).collect();
    let values = quantiles(&observations, &[0.5, 0.95, 0.99], 1);
    assert_eq!(values.iter().map(|value| value.value).collect::<Vec<_>>(), [50.0, 95.0, 99.0]);
    // Order statistics 40 and 61 bound the median of 100 with 95 %.
    assert!((36.0..45.0).contains(&values[0].low) && (56.0..65.0).contains(&values[0].high), "{values:?}");
}

#[test]
fn a_ratio_weighs_by_its_denominators() {
    let parts = [("a", 1.0, 10.0), ("b", 9.0, 10.0), ("c", 0.0, 80.0), ("d", 0.0, 0.0)];
    assert_eq!(ratio(&parts, 1).value, 0.1);
    assert_eq!(ratio(&[("a", 0.0, 0.0)], 1).value, 0.0);
}

#[test]
fn nothing_observed_is_zero() {
    assert_eq!(mean(&[], 1), Value::default());
    assert_eq!(difference(&[], 1), Value::default());
    assert_eq!(quantiles(&[], &[0.5], 1), [Value::default()]);
}

/// Of 400 worlds with a known difference, the interval holds it in about 95 %: the binomial's own 99.9 % range about
/// 0.95 with 400 throws is ± 3.29 √(0.95 · 0.05 / 400) = ± 3.6 points.
#[test]
fn intervals_hold_the_truth_in_95_of_100_worlds() {
    for (n_crates, n_holes, between) in [(48, 960, 0.06), (48, 960, 0.0), (8, 400, 0.06)] {
        let world = World { n_crates, n_holes, a: 0.4, only: (0.15, 0.10), between };
        let mut rng = Rng::new(20_261_123);
        let n_held = (0..400)
            .filter(|&seed| {
                let Value { low, high, .. } = world.difference(&mut rng, seed);
                (low..=high).contains(&0.05)
            })
            .count();
        let coverage = n_held as f64 / 400.0;
        assert!((0.914..=0.986).contains(&coverage), "{n_crates} crates, {between}: {coverage}");
    }
}

#[test]
fn the_share_of_few_holes_is_covered_too() {
    let mut rng = Rng::new(9);
    let n_held = (0..400)
        .filter(|&seed| {
            let drawn: Vec<(String, f64)> =
                (0..60).map(|i| (format!("file{}", i % 6), f64::from(u8::from(rng.uniform() < 0.1)))).collect();
            let observations: Vec<_> = drawn.iter().map(|(file, figure)| (file.as_str(), *figure)).collect();
            let Value { low, high, .. } = mean(&observations, seed);
            (low..=high).contains(&0.1)
        })
        .count();
    assert!(n_held >= 366, "{n_held} of 400"); // 0.95 − 3.6 points; more is allowed, for the wider of two is taken
}

/// How many holes and crates a half-width of 2 points takes; the crate doc states the outcome.
#[test]
fn five_thousand_holes_of_48_crates_tell_two_points_apart() {
    let half_width = |n_crates, n_holes| {
        let world = World { n_crates, n_holes, a: 0.4, only: (0.15, 0.10), between: 0.03 };
        let mut rng = Rng::new(5);
        let widths = (0..20).map(|seed| world.difference(&mut rng, seed).half_width());
        widths.sum::<f64>() / 20.0
    };
    // With these seeds 1.64, 1.89, 3.24 points; in the same world 2,500 holes of 48 crates give 2.15, 5,000 of 12 2.48.
    let widths = [(48, 5000), (24, 5000), (48, 1000)].map(|(n_crates, n_holes)| half_width(n_crates, n_holes));
    assert!(widths[0] < 0.02, "{widths:?}");
    assert!(widths[0] < widths[1] && widths[1] < 0.02, "{widths:?}");
    assert!(widths[2] > 0.02, "{widths:?}");
}
