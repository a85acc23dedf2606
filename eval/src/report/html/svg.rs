//! A few SVG shapes. Colours are classes, so that the page's style decides them for light and dark.

use std::fmt::Write;

/// A drawing to which shapes are added.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// Maps figures to pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) domain: (f64, f64),
    pub(super) pixels: (f64, f64),
    pub(super) is_log: bool,
}

/// How a text is aligned to its position.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Axis {
    pub(super) fn at(&self, figure: f64) -> f64 {
        let scaled = |figure: f64| if self.is_log { figure.max(f64::MIN_POSITIVE).ln() } else { figure };
        let (low, high) = (scaled(self.domain.0), scaled(self.domain.1));
        let share = if high > low { ((scaled(figure) - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 };
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }
}

impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = write!(self.body, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
    }

    /// A line through points; `label` is its tooltip.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)], label: &str) {
        let steps: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let label = escaped(label);
        let _ = write!(
            self.body,
            r#"<polyline class="{class}" points="{}"><title>{label}</title></polyline>"#,
            steps.join(" ")
        );
    }

    /// Fills the area between two lines.
    pub(super) fn band(&mut self, class: &str, low: &[(f64, f64)], high: &[(f64, f64)]) {
        let points = low.iter().chain(high.iter().rev()).map(|(x, y)| format!("{x:.1},{y:.1}"));
        let _ = write!(self.body, r#"<polygon class="{class}" points="{}"/>"#, points.collect::<Vec<_>>().join(" "));
    }

    /// A mark whose shape goes with its colour, for readers who do not distinguish colours.
    pub(super) fn mark(&mut self, style: usize, (x, y): (f64, f64), label: &str) {
        let shape = match style % 4 {
            0 => format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.2""#),
            1 => format!(r#"<rect x="{:.1}" y="{:.1}" width="7.4" height="7.4""#, x - 3.7, y - 3.7),
            2 => polygon(&[(x, y - 5.0), (x + 4.7, y + 3.4), (x - 4.7, y + 3.4)]),
            _ => polygon(&[(x, y - 5.2), (x + 5.2, y), (x, y + 5.2), (x - 5.2, y)]),
        };
        let tag = shape[1..].split(' ').next().unwrap_or_default().to_owned();
        let label = escaped(label);
        let _ = write!(self.body, r#"{shape} class="mark s{}"><title>{label}</title></{tag}>"#, style % N_STYLES);
    }

    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        let _ =
            write!(self.body, r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
    }

    /// A text along a vertical axis.
    pub(super) fn upright(&mut self, (x, y): (f64, f64), text: &str) {
        let text = escaped(text);
        let _ = write!(
            self.body,
            r#"<text class="label" transform="translate({x:.1} {y:.1}) rotate(-90)" text-anchor="middle">{text}</text>"#
        );
    }

    /// The SVG element. A screen reader reads title and description in place of the drawing.
    pub(super) fn finish(self, id: &str, title: &str, description: &str) -> String {
        let Self { width, height, body } = self;
        format!(
            r#"<svg viewBox="0 0 {width:.0} {height:.0}" role="img" aria-labelledby="{id}-title {id}-desc"><title id="{id}-title">{}</title><desc id="{id}-desc">{}</desc>{body}</svg>"#,
            escaped(title),
            escaped(description)
        )
    }
}

/// Styles that the page defines.
pub(super) const N_STYLES: usize = 8;

/// Escapes text for HTML and attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn polygon(points: &[(f64, f64)]) -> String {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    format!(r#"<polygon points="{}""#, points.join(" "))
}
