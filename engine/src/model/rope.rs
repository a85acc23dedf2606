//! Rotary positions (arXiv 2104.09864): features i and i + hd/2 of a head turn by position · θ^(−2i/hd).

use crate::Config;

/// Cosines and sines of every position, `[context][hd/2]` each.
#[derive(Debug)]
pub(super) struct Rope {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    pub(super) fn new(config: &Config) -> Self {
        let half = config.head_dim() / 2;
        let angles = (0..config.context).flat_map(|position| {
            let theta = f64::from(config.rope_theta);
            (0..half).map(move |i| position as f64 * theta.powf(-(i as f64) / half as f64))
        });
        let (sin, cos) = angles.map(|angle| (angle.sin() as f32, angle.cos() as f32)).unzip();
        Self { half, cos, sin }
    }

    /// Turns each head of x `[n_heads · head_dim]`.
    pub(super) fn rotate(&self, position: usize, x: &mut [f32]) {
        let cos = &self.cos[position * self.half..][..self.half];
        let sin = &self.sin[position * self.half..][..self.half];
        for head in x.chunks_exact_mut(2 * self.half) {
            let (low, high) = head.split_at_mut(self.half);
            for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                (*low, *high) = (*low * cos - *high * sin, *low * sin + *high * cos);
            }
        }
    }
}
