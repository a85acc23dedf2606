//! Plain loops compiled for what the CPU has: `dispatch` picks AVX2 or AVX-512 at run time.

/// Runs `f` compiled for the best instructions this CPU has. It and what it calls must be `#[inline(always)]`: a
/// closure that is not is compiled for the oldest CPU, and its `mul_add` calls a function.
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

/// Σ f(a_i, b_i, c_i).
#[inline(always)]
pub(crate) fn sum3(a: &[f32], b: &[f32], c: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_parts, a_rest) = a.as_chunks::<LANES>();
    let (b_parts, b_rest) = b.as_chunks::<LANES>();
    let (c_parts, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a_parts.iter().zip(b_parts).zip(c_parts) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane], c[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).zip(c_rest).map(|((a, b), c)| f(*a, *b, *c)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Σ f(a_i).
#[inline(always)]
pub(crate) fn sum(a: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    sum2(a, a, |a, _| f(a))
}

/// a_i ← f(a_i), and their sum.
#[inline(always)]
pub(crate) fn replace_sum(a: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (parts, rest) = a.as_chunks_mut::<LANES>();
    for part in parts {
        for lane in 0..LANES {
            part[lane] = f(part[lane]);
            lanes[lane] += part[lane];
        }
    }
    let rest: f32 = rest
        .iter_mut()
        .map(|a| {
            *a = f(*a);
            *a
        })
        .sum();
    lanes.iter().sum::<f32>() + rest
}

/// Σ a_i², summed in f64.
pub(crate) fn square_sum(a: &[f32]) -> f64 {
    dispatch(
        #[inline(always)]
        || {
            let mut lanes = [0.0f64; LANES];
            let (parts, rest) = a.as_chunks::<LANES>();
            for part in parts {
                for lane in 0..LANES {
                    lanes[lane] += f64::from(part[lane]) * f64::from(part[lane]);
                }
            }
            lanes.into_iter().chain(rest.iter().map(|a| f64::from(*a) * f64::from(*a))).sum()
        },
    )
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
    let mut p = 1.0f32 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p.mul_add(r, c);
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(SHIFT.to_bits()).wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { p * power }
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
}
