//! Progress of training and evaluation: a bar on a terminal, a line every ten seconds elsewhere, objects in JSON.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nanochat_engine::Cancel;

use crate::output::Output;

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows the events of a training run.
pub(crate) struct TrainProgress<'a> {
    output: &'a Output,
    bar: Bar,
    cancel: &'a Cancel,
    bits_per_byte: Option<f64>,
    error: Option<anyhow::Error>,
}

/// Maximum number of skipped files that are named; the rest is counted.
const MOST_SKIPPED: usize = 20;

impl<'a> TrainProgress<'a> {
    /// Sets `cancel` when stdout can no longer be written to.
    pub(crate) fn new(output: &'a Output, cancel: &'a Cancel) -> Self {
        Self { output, bar: Bar::new(output), cancel, bits_per_byte: None, error: None }
    }

    pub(crate) fn event(&mut self, event: nanochat_train::Event) {
        use nanochat_train::Event;
        if self.output.is_json()
            && self.error.is_none()
            && let Err(error) = self.output.json(&event)
        {
            self.error = Some(error);
            self.cancel.cancel();
        }
        match event {
            Event::Collected {
                n_train_files,
                n_dependency_files,
                n_held_out_files,
                train_bytes,
                skipped,
                n_scrubbed,
            } => {
                for (path, reason) in skipped.iter().take(MOST_SKIPPED) {
                    self.bar.say(self.output, &format!("skipped {}: {reason}", path.display()));
                }
                if skipped.len() > MOST_SKIPPED {
                    let n_more = skipped.len() - MOST_SKIPPED;
                    self.bar.say(self.output, &format!("skipped {n_more} more; --message-format json names them"));
                }
                let size = bytes(train_bytes);
                self.bar.say(
                    self.output,
                    &format!("{n_train_files} files ({size}) to learn from, {n_held_out_files} held out"),
                );
                if n_dependency_files > 0 {
                    self.bar.say(self.output, &format!("{n_dependency_files} of these files are dependencies'"));
                }
                if n_scrubbed > 0 {
                    let noun = if n_scrubbed == 1 { "secret" } else { "secrets" };
                    self.bar.say(self.output, &format!("{n_scrubbed} {noun} left out"));
                }
            }
            Event::Tokenizer { vocab_size, bytes_per_token } => {
                self.bar.say(
                    self.output,
                    &format!("{vocab_size} tokens, {bytes_per_token:.2} bytes each on held-out code"),
                );
            }
            Event::Tokenised { n_tokens, n_files, damaged } => {
                if let Some(reason) = damaged {
                    self.bar.say(self.output, &format!("the cached tokens were damaged ({reason}) and are rebuilt"));
                }
                self.bar.say(self.output, &format!("{n_tokens} tokens to learn from; {n_files} files tokenised"));
            }
            Event::Resumed { step } => self.bar.say(self.output, &format!("resuming from step {step}")),
            Event::Searched { step, total, rate, loss } => {
                let message = format!("loss {loss:.3} at {rate:.3} times the recipe's rates");
                self.bar.set(self.output, step, total, "rate", &message);
            }
            Event::Replayed { n_train_files, n_held_out_files, train_bytes } => {
                let size = bytes(train_bytes);
                let text = format!(
                    "{n_train_files} of these ({size}) are dependencies', against forgetting; {n_held_out_files} more \
                     held out"
                );
                self.bar.say(self.output, &text);
            }
            Event::Updated { n_changed_files: 0, .. } => {
                self.bar.say(self.output, "no file to learn from has changed since the last run");
            }
            Event::Updated { n_changed_files, share, steps } => {
                let text = format!(
                    "updating the last run: {n_changed_files} new or changed files, {:.1} % of the code, {steps} steps",
                    100.0 * share
                );
                self.bar.say(self.output, &text);
            }
            Event::Stopped { step, best_step, bits_per_byte } => {
                let text = format!(
                    "no more progress at step {step}; keeping step {best_step}, {bits_per_byte:.3} bits/byte held out"
                );
                self.bar.say(self.output, &text);
            }
            Event::Found { rate } => {
                self.bar.say(self.output, &format!("continuing with {rate:.3} times the recipe's learning rates"));
            }
            Event::RolledBack { from, step, rate } => {
                let text = format!(
                    "the loss diverged at step {from}; back at step {step}, with {rate:.3} times the recipe's learning \
                     rates"
                );
                self.bar.say(self.output, &text);
            }
            Event::Step { step, total, tokens: _, loss, bits_per_byte, tokens_per_s, utilisation, eta_s } => {
                self.bits_per_byte = bits_per_byte.or(self.bits_per_byte);
                let held_out =
                    self.bits_per_byte.map_or_else(String::new, |bits| format!("  held out {bits:.3} bits/byte"));
                let rate = rate(tokens_per_s);
                let eta = clock(eta_s);
                let used = utilisation.map_or_else(String::new, |used| format!(", {:.0} % of peak", 100.0 * used));
                let message = format!("loss {loss:.3}{held_out}  {rate} tokens/s{used}  {eta} left");
                self.bar.set(self.output, step, total, "step", &message);
            }
        }
    }

    /// Clears the bar. An error if stdout could not be written to.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.bar.clear();
        self.error.take().map_or(Ok(()), Err)
    }
}

/// A progress bar on a terminal, lines elsewhere.
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Bar {
    pub(crate) fn new(output: &Output) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
        bar.set_style(
            ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}").expect("the template is well-formed"),
        );
        let is_shown = !output.is_quiet() && !bar.is_hidden();
        Self { bar: is_shown.then_some(bar), last_line: None }
    }

    /// Shows that `done` of `total` is done. `unit` starts the line where there is no bar.
    pub(crate) fn set(&mut self, output: &Output, done: usize, total: usize, unit: &str, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(message.to_owned());
        } else if self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY) || done == total {
            self.last_line = Some(Instant::now());
            output.note(format_args!("{unit} {done}/{total}  {message}"));
        }
    }

    /// Prints a line above the bar.
    pub(crate) fn say(&self, output: &Output, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output.note(text)),
            None => output.note(text),
        }
    }

    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `1.2 MB`
pub(crate) fn bytes(n: usize) -> String {
    let n = n as f64;
    match n {
        _ if n < 1e3 => format!("{n:.0} bytes"),
        _ if n < 1e6 => format!("{:.1} kB", n / 1e3),
        _ => format!("{:.1} MB", n / 1e6),
    }
}

/// `950`, `5.4k`, `1.2M`
pub(crate) fn rate(n: f64) -> String {
    match n {
        _ if n < 1e3 => format!("{n:.0}"),
        _ if n < 1e6 => format!("{:.1}k", n / 1e3),
        _ => format!("{:.1}M", n / 1e6),
    }
}

/// `45s`, `3m20s`, `2h05m`
fn clock(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 1e9).round() as u64; // NaN becomes 0
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!([bytes(12), bytes(1_234_567)], ["12 bytes", "1.2 MB"]);
        assert_eq!([rate(950.4), rate(5432.0)], ["950", "5.4k"]);
        assert_eq!([clock(45.2), clock(200.0), clock(7500.0), clock(f64::NAN)], ["45s", "3m20s", "2h05m", "0s"]);
    }
}
