//! The thread that measures, while nobody asks, which plans suit this machine.
//!
//! ```text
//! loaded → 10 s without a question → due? → measure → tune.toml → loaded anew where the plans differ
//!            ↑                          a question: stop at once
//!            └── every hour the same
//! ```
//!
//! It has a low priority, and measures on threads of its own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use nanochat_engine::tune::{self, Effort, Plans, Workload};
use nanochat_engine::{Cancel, Cancelled};

use crate::worker::Worker;

/// Quiet for this long, and the user is reading.
const QUIET: Duration = Duration::from_secs(10);
/// Between two looks at whether the machine is as fast as it was.
const PERIOD: Duration = Duration::from_secs(3600);

/// What the engine that is loaded computes, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tuning {
    /// The table.
    pub(crate) path: PathBuf,
    /// Its products.
    pub(crate) workload: Workload,
    /// What it was loaded with.
    pub(crate) plans: Plans,
}

/// A handle on the thread, which is started by the first engine and ends with the worker.
#[derive(Clone, Default)]
pub(crate) struct Tuner(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tuning: Option<Tuning>,
    is_started: bool,
}

impl Tuner {
    /// An engine was loaded. `reload` is called, on the thread, when another would be faster.
    pub(crate) fn loaded(&self, tuning: Tuning, worker: &Worker, reload: impl Fn() + Send + 'static) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.tuning = Some(tuning);
        if !state.is_started {
            let (tuner, worker) = (self.clone(), worker.clone());
            let thread = std::thread::Builder::new().name("nanochat-tuner".to_owned());
            // Without one, plans stay as they are.
            state.is_started = thread.spawn(move || tuner.run(&worker, &reload)).is_ok();
        }
    }

    fn run(&self, worker: &Worker, reload: &impl Fn()) {
        lower_priority();
        let mut wait = QUIET;
        loop {
            let quiet = worker.until_asked();
            std::thread::sleep(wait);
            if worker.is_closed() {
                return;
            }
            wait = QUIET;
            if quiet.is_cancelled() {
                continue;
            }
            let tuning = self.0.lock().unwrap_or_else(PoisonError::into_inner).tuning.clone();
            let Some(tuning) = tuning else { continue };
            match step(&tuning, tune::TIME, &quiet) {
                Ok(is_faster) => {
                    wait = PERIOD;
                    if is_faster {
                        reload();
                    }
                }
                Err(Cancelled) => tracing::debug!("measuring gave way to a question"),
            }
        }
    }
}

/// Measures if that is due. Returns whether the plans differ from those in use.
fn step(tuning: &Tuning, time: Duration, quiet: &Cancel) -> Result<bool, Cancelled> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if !tune::is_due(&tuning.path, &tuning.workload, now, quiet)? {
        return Ok(false);
    }
    let tuned = tune::measure(&tuning.workload, Effort { time, now }, &mut |_| (), quiet)?.tuned;
    let plans = tuned.plans();
    tracing::info!(token_us = tuned.token_us, prompt_batch = tuned.prompt_batch, "measured this machine");
    if let Err(error) = tune::remember(&tuning.path, tuned) {
        tracing::warn!(%error, "the measurement is not kept");
        return Ok(false);
    }
    Ok(plans != tuning.plans)
}

fn lower_priority() {
    // On Linux a priority is a thread's, and threads inherit it; elsewhere it would be the whole server's.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 10) {
        tracing::debug!(%error, "measuring keeps the server's priority");
    }
}

#[cfg(test)]
mod tests {
    use nanochat_engine::Config;

    use super::*;

    fn tuning(folder: &tempfile::TempDir) -> Tuning {
        let config: Config = "d64 l1 h4 kv2 ff64 v300 n1 ctx64".parse().expect("a shape");
        let (path, workload) = (folder.path().join("tune.toml"), tune::workload(&config, 1));
        Tuning { path, workload, plans: Plans::default() }
    }

    #[test]
    fn what_was_measured_is_what_the_next_load_uses() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut tuning = tuning(&folder);
        let time = Duration::from_millis(1);
        let is_faster = step(&tuning, time, &Cancel::new()).expect("nobody asked");
        let found = tune::find(&tuning.path, &tuning.workload).expect("a sound table").expect("it was written");
        assert_eq!(is_faster, found.plans() != Plans::default());
        // With these plans in use there is nothing to gain, measured again or not.
        tuning.plans = found.plans();
        let again = step(&tuning, time, &Cancel::new()).expect("nobody asked");
        let found = tune::find(&tuning.path, &tuning.workload).expect("a sound table").expect("it is there");
        assert_eq!(again, found.plans() != tuning.plans);
    }

    #[test]
    fn a_question_stops_it_before_it_has_written_anything() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (tuning, quiet) = (tuning(&folder), Cancel::new());
        quiet.cancel();
        assert_eq!(step(&tuning, Duration::from_secs(3600), &quiet), Err(Cancelled));
        assert!(!tuning.path.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_changes_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut tuning = tuning(&folder);
        std::fs::write(folder.path().join("file"), "").expect("a file");
        tuning.path = folder.path().join("file/tune.toml");
        assert_eq!(step(&tuning, Duration::from_millis(1), &Cancel::new()), Ok(false));
    }
}
