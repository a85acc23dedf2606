//! Intervals of shares of independent holes, in closed form.

/// 97.5 % quantile of the standard normal.
pub(super) const Z: f64 = 1.959_963_985;

/// Wilson 1927: `(p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)`; 0..=1 for n = 0.
pub fn wilson(successes: usize, n: usize) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (p, n) = (successes as f64 / n as f64, n as f64);
    let center = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (((center - half) / scale).max(0.0), ((center + half) / scale).min(1.0))
}

/// Agresti and Min 2005, of a difference of paired shares: Wald's interval with half a hole added to each of the four
/// cells. `plus` holes are for A alone, `minus` for B alone.
pub(super) fn agresti_min(plus: usize, minus: usize, n: usize) -> (f64, f64) {
    let (plus, minus, n) = (plus as f64 + 0.5, minus as f64 + 0.5, n as f64 + 2.0);
    let center = (plus - minus) / n;
    let half = Z * (plus + minus - (plus - minus).powi(2) / n).sqrt() / n;
    ((center - half).max(-1.0), (center + half).min(1.0))
}
