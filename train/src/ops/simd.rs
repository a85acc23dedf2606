//! Plain loops compiled for what the CPU has: `dispatch` picks AVX2 or AVX-512 at run time.

/// Runs `f` compiled for the best instructions this CPU has. What `f` calls must be `#[inline(always)]`.
#[inline]
pub(crate) fn dispatch<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Lanes that a reduction is split into, so that it vectorises; the order is the same on every CPU.
const LANES: usize = 16;

/// Σ f(a_i, b_i).
#[inline(always)]
pub(crate) fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_parts, a_rest) = a.as_chunks::<LANES>();
    let (b_parts, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_parts.iter().zip(b_parts) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| f(*a, *b)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Σ f(a_i).
#[inline(always)]
pub(crate) fn sum(a: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    sum2(a, a, |a, _| f(a))
}

/// max f(a_i), at least `start`.
#[inline(always)]
pub(crate) fn max(a: &[f32], start: f32, f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let (parts, rest) = a.as_chunks::<LANES>();
    for part in parts {
        for lane in 0..LANES {
            let value = f(part[lane]);
            lanes[lane] = if value > lanes[lane] { value } else { lanes[lane] };
        }
    }
    let mut best = start;
    for value in lanes.into_iter().chain(rest.iter().map(|v| f(*v))) {
        best = if value > best { value } else { best };
    }
    best
}

/// 1.5·2²³: adding it rounds to a whole number.
const SHIFT: f32 = 12_582_912.0;

/// eˣ within 2 units in the last place for x in −87..88; 0 below. Branch-free, so loops over it vectorise.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // x = n·ln 2 + r, |r| ≤ ln 2 / 2; eʳ by its Taylor polynomial of degree 7 (error below 2⁻²⁶).
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + SHIFT; // the low bits now hold n
    let n = shifted - SHIFT;
    let r = (clamped - n * 0.693_359_4) - n * -2.121_944_4e-4; // ln 2 in two parts (Cody & Waite)
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(SHIFT.to_bits()).wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { p * power }
}

/// Rounds half away from zero, as `f32::round` does, in a form that vectorises; |x| < 2²³.
#[inline(always)]
pub(crate) fn round(x: f32) -> f32 {
    (x + 0.499_999_97_f32.copysign(x)).trunc()
}

/// Writes `row` as whole numbers within ±127 and returns the scale: `row ≈ scale · out`.
#[inline(always)]
pub(crate) fn quantize_row(row: &[f32], out: &mut [f32]) -> f32 {
    let absmax = max(row, 0.0, f32::abs);
    let scale = absmax / 127.0;
    if absmax == 0.0 {
        out.fill(0.0);
    } else {
        for (out, x) in out.iter_mut().zip(row) {
            *out = round(x / scale).clamp(-127.0, 127.0);
        }
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_a_few_units_in_the_last_place() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 4.0 * f64::from(f32::EPSILON), "exp({x}) is off by {error:e}");
        }
        assert_eq!(exp(-1000.0), 0.0);
    }

    #[test]
    fn rounding_agrees_with_the_standard_library() {
        for i in -100_000..100_000 {
            let x = i as f32 / 512.0;
            for x in [x, x.next_up(), x.next_down()] {
                assert_eq!(round(x), x.round(), "{x}");
            }
        }
    }
}
