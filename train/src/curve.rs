//! The loss curve of a run, as a drawing.

use std::path::{Path, PathBuf};

use nanochat_engine::workspace::store::write_durably;
use plotters::prelude::*;

use crate::journal::StepEntry;
use crate::state_dir::StateError;

/// Name of the drawing in the state folder.
pub const FILE_NAME: &str = "curve.svg";

const SIZE: (u32, u32) = (880, 440);
/// Number of steps that a point of the smoothed line averages.
const WINDOW: usize = 50;

/// Draws the steps of a run into its state folder. Returns the path of the drawing.
pub fn save(folder: &Path, entries: &[StepEntry]) -> Result<PathBuf, StateError> {
    let path = folder.join(FILE_NAME);
    let svg = draw(entries);
    write_durably(&path, |out| out.write_all(svg.as_bytes()))
        .map_err(|source| StateError::Io { path: path.clone(), source })?;
    Ok(path)
}

/// An SVG: each step's loss, their running mean, and the held-out bits per byte where they were measured.
pub fn draw(entries: &[StepEntry]) -> String {
    let mut svg = String::new();
    try_draw(&mut svg, entries).expect("a drawing in memory meets no file system");
    svg
}

fn try_draw(svg: &mut String, entries: &[StepEntry]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let measured: Vec<(f64, f64)> =
        entries.iter().filter_map(|entry| Some((entry.tokens as f64, entry.bits_per_byte?))).collect();
    let losses: Vec<(f64, f64)> = entries.iter().map(|entry| (entry.tokens as f64, entry.loss)).collect();
    let last = losses.last().map_or(1.0, |(tokens, _)| *tokens);
    let (low, high) = range(&losses);
    let (low_bits, high_bits) = range(&measured);
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .right_y_label_area_size(56)
        .build_cartesian_2d(0.0..last, low..high)?
        .set_secondary_coord(0.0..last, low_bits..high_bits);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("million tokens")
        .x_label_formatter(&|tokens| format!("{:.1}", tokens / 1e6))
        .y_desc("loss, nats per token")
        .draw()?;
    chart.configure_secondary_axes().y_desc("held out, bits per byte").draw()?;
    chart.draw_series(LineSeries::new(losses.iter().copied(), BLUE.mix(0.25)))?;
    chart
        .draw_series(LineSeries::new(smooth(&losses), BLUE.stroke_width(2)))?
        .label("loss")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], BLUE));
    chart
        .draw_secondary_series(LineSeries::new(measured.iter().copied(), RED.stroke_width(2)))?
        .label("held out")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], RED));
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}

/// From a little below the least to a little above the largest; never empty.
fn range(points: &[(f64, f64)]) -> (f64, f64) {
    let values = || points.iter().map(|(_, y)| *y).filter(|y| y.is_finite());
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    if low > high {
        return (0.0, 1.0);
    }
    let margin = (0.05 * (high - low)).max(0.01);
    (low - margin, high + margin)
}

/// Means of up to [`WINDOW`] points, each where the last of them is.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |end: usize| {
        let part = &points[end.saturating_sub(WINDOW)..end];
        (points[end - 1].0, part.iter().map(|(_, y)| y).sum::<f64>() / part.len() as f64)
    };
    (1..=points.len()).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_one_step_are_drawn_too() {
        let one = StepEntry { step: 1, tokens: 4096, loss: 9.0, bits_per_byte: None };
        for entries in [vec![], vec![one]] {
            assert!(draw(&entries).contains("</svg>"));
        }
    }

    #[test]
    fn means_are_over_the_points_before() {
        let points: Vec<(f64, f64)> = (0..60).map(|i| (f64::from(i), f64::from(i))).collect();
        let means = smooth(&points);
        assert_eq!((means[0], means[9], means[59]), ((0.0, 0.0), (9.0, 4.5), (59.0, 34.5)));
    }
}
