//! What an answer is worth, and how sure a mean is: values with 95 % intervals.

use nanochat_engine::rng::Rng;

/// Resamples of the bootstrap: the ends of the interval move by less than a tenth of its width between seeds.
const N_RESAMPLES: usize = 2000;
/// 97.5 % quantile of the standard normal.
const Z: f64 = 1.959_963_985;

/// A figure and its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Value {
    /// The figure.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// One observation: which file it comes from, and its figure.
pub(crate) type Observation<'a> = (&'a str, f64);

/// The mean, with a percentile bootstrap over files: holes of one file are not independent. For shares (all figures
/// 0 or 1) never narrower than Wilson's interval, since few files, or none that differ, would leave no width at all;
/// of a single file, Wilson's interval for shares and a bootstrap over its holes for anything else.
pub(crate) fn mean(observations: &[Observation<'_>], seed: u64) -> Value {
    let resampled = mean_difference(observations, seed);
    if observations.is_empty() || observations.iter().any(|&(_, figure)| figure != 0.0 && figure != 1.0) {
        return resampled;
    }
    let Value { value, low: mut lower, high: mut upper } = resampled;
    let (low, high) = wilson(value, observations.len() as f64);
    if clusters(observations).len() == 1 {
        (lower, upper) = (low, high);
    }
    Value { value, low: lower.min(low), high: upper.max(high) }
}

/// The mean of paired differences (−1..=1), with the same bootstrap.
pub(crate) fn mean_difference(observations: &[Observation<'_>], seed: u64) -> Value {
    bootstrap(observations, seed, |figures| sum(figures) / figures.len().max(1) as f64)
}

/// A quantile (0..=1), with the same bootstrap.
pub(crate) fn quantile(observations: &[Observation<'_>], q: f64, seed: u64) -> Value {
    bootstrap(observations, seed, |figures| {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        nearest_rank(&sorted, q)
    })
}

/// `1 − distance / longer length`, in characters; 1 for two empty texts.
pub(crate) fn edit_similarity(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let longer = a.len().max(b.len());
    if longer == 0 { 1.0 } else { 1.0 - levenshtein(&a, &b) as f64 / longer as f64 }
}

fn sum(figures: &[f64]) -> f64 {
    figures.iter().sum()
}

/// Figures by file, in order of the files' names.
fn clusters(observations: &[Observation<'_>]) -> Vec<Vec<f64>> {
    let mut by_file: std::collections::BTreeMap<&str, Vec<f64>> = std::collections::BTreeMap::new();
    for (file, figure) in observations {
        by_file.entry(file).or_default().push(*figure);
    }
    by_file.into_values().collect()
}

fn bootstrap(observations: &[Observation<'_>], seed: u64, statistic: impl Fn(&[f64]) -> f64) -> Value {
    let figures: Vec<f64> = observations.iter().map(|(_, figure)| *figure).collect();
    if figures.is_empty() {
        return Value::default();
    }
    let value = statistic(&figures);
    let mut clusters = clusters(observations);
    if clusters.len() == 1 {
        clusters = figures.iter().map(|&figure| vec![figure]).collect();
    }
    let mut rng = Rng::new(seed);
    let mut resampled: Vec<f64> = Vec::with_capacity(N_RESAMPLES);
    let mut drawn = Vec::new();
    for _ in 0..N_RESAMPLES {
        drawn.clear();
        for _ in 0..clusters.len() {
            drawn.extend_from_slice(&clusters[rng.below(clusters.len())]);
        }
        resampled.push(statistic(&drawn));
    }
    resampled.sort_by(f64::total_cmp);
    Value { value, low: nearest_rank(&resampled, 0.025), high: nearest_rank(&resampled, 0.975) }
}

/// The smallest figure that at least the share `q` does not exceed; 0 of nothing.
fn nearest_rank(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

/// Wilson 1927: `(p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)`.
fn wilson(p: f64, n: f64) -> (f64, f64) {
    let center = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (((center - half) / scale).max(0.0), ((center + half) / scale).min(1.0))
}

fn levenshtein(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarity_counts_characters() {
        assert_eq!(edit_similarity("kitten", "sitting"), 1.0 - 3.0 / 7.0);
        assert_eq!(edit_similarity("größe", "grosse"), 1.0 - 3.0 / 6.0);
        assert_eq!(edit_similarity("", ""), 1.0);
        assert_eq!(edit_similarity("", "abc"), 0.0);
    }

    #[test]
    fn one_file_gives_wilsons_interval() {
        let observations: Vec<_> = (0..10).map(|i| ("a.rs", if i < 8 { 1.0 } else { 0.0 })).collect();
        let Value { value, low, high } = mean(&observations, 1);
        assert_eq!(value, 0.8);
        assert!((low - 0.4902).abs() < 1e-4 && (high - 0.9433).abs() < 1e-4, "{low} {high}"); // by hand
    }

    #[test]
    fn a_share_of_nothing_but_successes_is_not_certain() {
        let observations: Vec<_> = (0..20).map(|i| (if i % 2 == 0 { "a.rs" } else { "b.rs" }, 1.0)).collect();
        let Value { value, low, high } = mean(&observations, 1);
        assert_eq!((value, high), (1.0, 1.0));
        assert!((low - 0.8389).abs() < 1e-3, "{low}"); // 1 / (1 + z²/20)
    }

    #[test]
    fn files_are_drawn_whole() {
        // Two files, all success in one, none in the other: a mean of files can be 0, 1/2 or 1.
        let observations: Vec<_> = (0..200).map(|i| if i < 100 { ("a.rs", 1.0) } else { ("b.rs", 0.0) }).collect();
        let Value { value, low, high } = mean(&observations, 1);
        assert_eq!((value, low, high), (0.5, 0.0, 1.0));
        assert_eq!(mean(&observations, 1), mean(&observations, 1));
    }

    #[test]
    fn quantiles_are_observed_figures() {
        let observations: Vec<_> = (1..=100).map(|i| ("a.rs", f64::from(i))).collect();
        assert_eq!(quantile(&observations, 0.5, 1).value, 50.0);
        assert_eq!(quantile(&observations, 0.95, 1).value, 95.0);
        let Value { low, high, .. } = quantile(&observations, 0.5, 1);
        assert!((30.0..50.0).contains(&low) && (50.0..70.0).contains(&high), "{low} {high}");
    }

    #[test]
    fn nothing_observed_is_zero() {
        assert_eq!(mean(&[], 1), Value::default());
        assert_eq!(quantile(&[], 0.5, 1), Value::default());
    }
}
