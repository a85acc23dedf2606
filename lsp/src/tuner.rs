//! The thread that measures, while there are no requests, which plans are fastest on this machine.
//!
//! ```text
//! loaded → 10 s without a request → due? → measure → tune.toml → reload where the plans differ
//!            ↑                        a request: stop at once
//!            └── again after an hour
//! ```
//!
//! It runs at low priority, and measures on threads of its own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use nanochat_engine::tune::{self, Effort, Plans, Workload};
use nanochat_engine::{Cancel, Cancelled};

use crate::worker::Worker;

/// Time without a request after which the user is taken to be reading.
const IDLE: Duration = Duration::from_secs(10);
/// Time between two checks that the machine is as fast as when it was measured.
const PERIOD: Duration = Duration::from_secs(3600);

/// What the loaded engine computes, and with which plans.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tuning {
    /// The file that measurements are kept in.
    pub(crate) path: PathBuf,
    /// The matrix products of the engine's model.
    pub(crate) workload: Workload,
    /// The plans that the engine was loaded with.
    pub(crate) plans: Plans,
}

/// A handle on the thread, which starts with the first engine and ends with the worker.
#[derive(Clone, Default)]
pub(crate) struct Tuner(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tuning: Option<Tuning>,
    is_started: bool,
}

impl Tuner {
    /// Tells the thread that an engine was loaded. It calls `reload` when other plans are faster.
    pub(crate) fn loaded(&self, tuning: Tuning, worker: &Worker, reload: impl Fn() + Send + 'static) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.tuning = Some(tuning);
        if !state.is_started {
            let (tuner, worker) = (self.clone(), worker.clone());
            let thread = std::thread::Builder::new().name("nanochat-tuner".to_owned());
            // Without the thread, plans stay as they are.
            state.is_started = thread.spawn(move || tuner.run(&worker, &reload)).is_ok();
        }
    }

    fn run(&self, worker: &Worker, reload: &impl Fn()) {
        lower_priority();
        let mut wait = IDLE;
        loop {
            let idle = worker.cancelled_by_next_job();
            std::thread::sleep(wait);
            if worker.is_closed() {
                return;
            }
            wait = IDLE;
            if idle.is_cancelled() {
                continue;
            }
            let tuning = self.0.lock().unwrap_or_else(PoisonError::into_inner).tuning.clone();
            let Some(tuning) = tuning else { continue };
            match step(&tuning, tune::TIME, &idle) {
                Ok(is_faster) => {
                    wait = PERIOD;
                    if is_faster {
                        reload();
                    }
                }
                Err(Cancelled) => tracing::debug!("measuring stopped for a request"),
            }
        }
    }
}

/// Measures if that is due. Returns whether the plans differ from those in use.
fn step(tuning: &Tuning, time: Duration, idle: &Cancel) -> Result<bool, Cancelled> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if !tune::is_due(&tuning.path, &tuning.workload, now, idle)? {
        return Ok(false);
    }
    let tuned = tune::measure(&tuning.workload, Effort { time, now }, &mut |_| (), idle)?.tuned;
    let plans = tuned.plans();
    tracing::info!(token_us = tuned.token_us, prompt_batch = tuned.prompt_batch, "measured this machine");
    if let Err(error) = tune::remember(&tuning.path, tuned) {
        tracing::warn!(%error, "cannot store the measurement");
        return Ok(false);
    }
    Ok(plans != tuning.plans)
}

fn lower_priority() {
    // On Linux each thread has its own priority, inherited by the threads it starts; elsewhere this would lower the
    // priority of the whole server.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 10) {
        tracing::debug!(%error, "cannot lower the priority of the measuring thread");
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
        let is_faster = step(&tuning, time, &Cancel::new()).expect("nothing cancels it");
        let found = tune::find(&tuning.path, &tuning.workload).expect("a sound table").expect("it was written");
        assert_eq!(is_faster, found.plans() != Plans::default());
        // With these plans in use there is nothing to gain, measured again or not.
        tuning.plans = found.plans();
        let again = step(&tuning, time, &Cancel::new()).expect("nothing cancels it");
        let found = tune::find(&tuning.path, &tuning.workload).expect("a sound table").expect("it is there");
        assert_eq!(again, found.plans() != tuning.plans);
    }

    #[test]
    fn a_request_stops_it_before_it_has_written_anything() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (tuning, idle) = (tuning(&folder), Cancel::new());
        idle.cancel();
        assert_eq!(step(&tuning, Duration::from_secs(3600), &idle), Err(Cancelled));
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
