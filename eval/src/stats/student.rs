//! The normal and Student's distribution, as far as intervals need them.

use super::shares::Z;

/// Φ(x), to 1e-7: Abramowitz and Stegun 26.2.17.
pub(super) fn normal_cdf(x: f64) -> f64 {
    let k = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let b = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let tail = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * b.iter().rev().fold(0.0, |sum, b| (sum + b) * k);
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// 97.5 % quantile of Student's t, to 0.2 %: closed forms for one and two degrees of freedom, else Abramowitz and
/// Stegun 26.7.5.
pub(super) fn t_975(degrees: f64) -> f64 {
    if degrees < 2.0 {
        return (std::f64::consts::PI * 0.475).tan();
    }
    if degrees < 3.0 {
        return 0.95 * (2.0 / (1.0 - 0.95 * 0.95f64)).sqrt();
    }
    let z = |power| Z.powi(power);
    let terms = [
        (z(3) + Z) / 4.0,
        (5.0 * z(5) + 16.0 * z(3) + 3.0 * Z) / 96.0,
        (3.0 * z(7) + 19.0 * z(5) + 17.0 * z(3) - 15.0 * Z) / 384.0,
        (79.0 * z(9) + 776.0 * z(7) + 1482.0 * z(5) - 1920.0 * z(3) - 945.0 * Z) / 92160.0,
    ];
    Z + terms.iter().rev().fold(0.0, |sum, term| (sum + term) / degrees)
}
