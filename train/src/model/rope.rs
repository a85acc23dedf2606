//! Rotary frequencies, as the engine's: angle of pair c at position p is p · θ^(−2c/hd).

use std::sync::Arc;

use nanochat_engine::Config;

/// cos and sin, `[seq_len, hd / 2]` each.
pub fn table(config: &Config, seq_len: usize) -> Arc<(Vec<f32>, Vec<f32>)> {
    let hd = config.head_dim();
    let angles = (0..seq_len).flat_map(|position| {
        (0..hd / 2).map(move |c| {
            // In f64, so that both twins round the same number once.
            position as f64 * f64::from(config.rope_theta).powf(-2.0 * c as f64 / hd as f64)
        })
    });
    Arc::new(angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip())
}
