//! McNemar's test: of the holes on which A and B differ, does each win half?

/// A against B on the same holes. The exact binomial test at every count: holes are taken as independent, so it
/// complements the clustered interval and does not replace it.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct McNemar {
    /// Holes that A alone got right.
    pub only_a: usize,
    /// Holes that B alone got right.
    pub only_b: usize,
    /// Two-sided probability of a split at least this uneven if A and B are equally good.
    pub p: f64,
}

impl McNemar {
    /// Counts (A is right, B is right) hole by hole.
    pub fn of(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let (mut only_a, mut only_b) = (0, 0);
        for (a, b) in pairs {
            only_a += usize::from(a && !b);
            only_b += usize::from(b && !a);
        }
        Self { only_a, only_b, p: two_sided(only_a, only_b) }
    }
}

/// 2 · P(X ≤ min(a, b)), X binomial of a + b fair throws, at most 1. In logarithms: 2⁻ⁿ leaves f64 at n = 1,075.
fn two_sided(a: usize, b: usize) -> f64 {
    let n = a + b;
    let mut ln_choose = 0.0; // of n over 0
    let ln_all = n as f64 * std::f64::consts::LN_2;
    let mut p = (-ln_all).exp();
    for k in 1..=a.min(b) {
        ln_choose += ((n - k + 1) as f64).ln() - (k as f64).ln();
        p += (ln_choose - ln_all).exp();
    }
    (2.0 * p).min(1.0)
}
