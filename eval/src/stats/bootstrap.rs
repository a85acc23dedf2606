//! The percentile bootstrap over clusters, of means, ratios of sums and quantiles.

use std::collections::BTreeMap;

use nanochat_engine::rng::Rng;

use super::{Value, shares, student};

/// Resamples: the ends of the interval move by less than a tenth of its width between seeds.
const N_RESAMPLES: usize = 2000;

/// One figure and the cluster it belongs to.
pub type Observation<'a> = (&'a str, f64);

/// One term of a ratio of sums: cluster, numerator, denominator (not negative).
pub type RatioTerm<'a> = (&'a str, f64, f64);

/// The mean; 0 without observations. For shares (all figures 0 or 1) never narrower than Wilson's interval, since few clusters, or
/// none that differ, would leave no width at all; of a single cluster the holes are resampled and shares have Wilson's
/// interval alone.
pub fn mean(observations: &[Observation<'_>], seed: u64) -> Value {
    let parts: Vec<RatioTerm<'_>> = observations.iter().map(|&(cluster, figure)| (cluster, figure, 1.0)).collect();
    let is_share = observations.iter().all(|&(_, figure)| figure == 0.0 || figure == 1.0);
    if !is_share || observations.is_empty() {
        return ratio(&parts, seed);
    }
    let successes: f64 = observations.iter().map(|(_, figure)| figure).sum();
    let (low, high) = shares::wilson(successes as usize, observations.len());
    if has_one_cluster(&parts) {
        return Value { value: successes / observations.len() as f64, low, high };
    }
    ratio(&parts, seed).widened((low, high))
}

/// The mean of paired differences. For shares (all −1, 0 or 1) never narrower than Agresti and Min's interval, so that
/// two systems that agree on every hole are not called equal with certainty.
///
/// ```
/// use nanochat_eval::stats;
///
/// // (crate, A's figure − B's figure) of each hole: A is right where B is not in 14 of 20 holes.
/// let differences: Vec<(&str, f64)> =
///     (0..20).map(|i| (["alpha", "beta", "gamma"][i % 3], if i < 14 { 1.0 } else { 0.0 })).collect();
/// let value = stats::difference(&differences, 7);
/// assert_eq!(value.value, 0.7);
/// assert!(value.excludes_zero() && value.low < 0.7 && 0.7 < value.high);
/// // Crates are resampled as wholes, with the given seed: the same figures give the same interval.
/// assert_eq!(value, stats::difference(&differences, 7));
/// ```
pub fn difference(differences: &[Observation<'_>], seed: u64) -> Value {
    let parts: Vec<RatioTerm<'_>> = differences.iter().map(|&(cluster, figure)| (cluster, figure, 1.0)).collect();
    let value = ratio(&parts, seed);
    let is_share = differences.iter().all(|&(_, figure)| [-1.0, 0.0, 1.0].contains(&figure));
    if !is_share || differences.is_empty() {
        return value;
    }
    let count = |sign: f64| differences.iter().filter(|(_, figure)| *figure == sign).count();
    value.widened(shares::agresti_min(count(1.0), count(-1.0), differences.len()))
}

/// Σ numerators / Σ denominators; 0 where the denominators are.
pub fn ratio(parts: &[RatioTerm<'_>], seed: u64) -> Value {
    let quotient = |numerator: f64, denominator: f64| if denominator > 0.0 { numerator / denominator } else { 0.0 };
    let (numerator, denominator) = parts.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.1, sum.1 + part.2));
    let clusters = numbered(parts.iter().map(|part| part.0));
    let mut sums = vec![(0.0, 0.0); clusters.n];
    for (part, &cluster) in parts.iter().zip(&clusters.of) {
        sums[cluster].0 += part.1;
        sums[cluster].1 += part.2;
    }
    let mut resampled = Vec::with_capacity(N_RESAMPLES);
    resample(clusters.n, seed, |drawn| {
        let sum = drawn.iter().map(|&cluster| sums[cluster]).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        resampled.push(quotient(sum.0, sum.1));
    });
    let (low, high) = ends(resampled, clusters.n);
    Value { value: quotient(numerator, denominator), low, high }
}

/// Quantiles (each 0..=1): the smallest figure that at least this share of figures does not exceed; 0 without observations.
pub fn quantiles(observations: &[Observation<'_>], qs: &[f64], seed: u64) -> Vec<Value> {
    let clusters = numbered(observations.iter().map(|(cluster, _)| *cluster));
    let mut sorted: Vec<(f64, usize)> =
        observations.iter().map(|(_, figure)| *figure).zip(clusters.of.iter().copied()).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut sizes = vec![0; clusters.n];
    clusters.of.iter().for_each(|&cluster| sizes[cluster] += 1);

    let mut resampled = vec![Vec::with_capacity(N_RESAMPLES); qs.len()];
    let mut times = vec![0; clusters.n];
    resample(clusters.n, seed, |drawn| {
        times.fill(0);
        drawn.iter().for_each(|&cluster| times[cluster] += 1);
        let n: usize = times.iter().zip(&sizes).map(|(times, size)| times * size).sum();
        for (q, resampled) in qs.iter().zip(&mut resampled) {
            let mut rank = nearest_rank(*q, n);
            let at_rank = sorted.iter().find(|(_, cluster)| {
                rank = rank.saturating_sub(times[*cluster]);
                rank == 0
            });
            resampled.extend(at_rank.map(|(figure, _)| *figure));
        }
    });
    let figures: Vec<f64> = sorted.into_iter().map(|(figure, _)| figure).collect();
    qs.iter()
        .zip(resampled)
        .map(|(q, resampled)| {
            let (low, high) = ends(resampled, clusters.n);
            Value { value: quantile(&figures, *q), low, high }
        })
        .collect()
}

/// Clusters by number, in order of their names.
struct Clusters {
    n: usize,
    /// The cluster's number of each observation.
    of: Vec<usize>,
}

/// A single cluster does not show how clusters differ, so each observation then counts as its own cluster.
fn numbered<'a>(names: impl ExactSizeIterator<Item = &'a str> + Clone) -> Clusters {
    let mut numbers: BTreeMap<&str, usize> = names.clone().map(|name| (name, 0)).collect();
    if numbers.len() == 1 {
        return Clusters { n: names.len(), of: (0..names.len()).collect() };
    }
    numbers.values_mut().enumerate().for_each(|(number, value)| *value = number);
    Clusters { n: numbers.len(), of: names.map(|name| numbers[name]).collect() }
}

fn has_one_cluster(parts: &[RatioTerm<'_>]) -> bool {
    parts.windows(2).all(|pair| pair[0].0 == pair[1].0)
}

fn resample(n_clusters: usize, seed: u64, mut each: impl FnMut(&[usize])) {
    if n_clusters == 0 {
        return;
    }
    let mut rng = Rng::new(seed);
    let mut drawn = vec![0; n_clusters];
    for _ in 0..N_RESAMPLES {
        drawn.iter_mut().for_each(|cluster| *cluster = rng.below(n_clusters));
        each(&drawn);
    }
}

/// Hesterberg 2015, “What teachers should know about the bootstrap”, expanded percentile: the plain percentiles are
/// too narrow by √((n−1)/n) and use the normal's quantile where Student's belongs.
fn ends(mut resampled: Vec<f64>, n_clusters: usize) -> (f64, f64) {
    resampled.sort_by(f64::total_cmp);
    let tail = match n_clusters {
        0 | 1 => 0.0,
        n => {
            let n = n as f64;
            student::normal_cdf(-(n / (n - 1.0)).sqrt() * student::t_975(n - 1.0))
        }
    };
    (quantile(&resampled, tail), quantile(&resampled, 1.0 - tail))
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted.get(nearest_rank(q, sorted.len()) - 1).copied().unwrap_or_default()
}

/// The rank of a quantile, from 1.
fn nearest_rank(q: f64, n: usize) -> usize {
    ((q * n as f64).ceil() as usize).clamp(1, n.max(1))
}
