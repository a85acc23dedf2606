//! Ctrl-C: the first one asks the work to stop, the second one ends the process.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nanochat_engine::Cancel;

use crate::exit::Exit;

/// What the handler of SIGINT and SIGTERM shares with the command.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    cancel: Cancel,
    leave_at_once: Arc<AtomicBool>,
    folder: Arc<Mutex<Option<PathBuf>>>,
}

static INTERRUPT: OnceLock<Interrupt> = OnceLock::new();

impl Interrupt {
    /// Installs the handler, once. Work is cancelled by [`Interrupt::cancel`].
    pub(crate) fn install() -> anyhow::Result<&'static Self> {
        if let Some(interrupt) = INTERRUPT.get() {
            return Ok(interrupt);
        }
        let interrupt = Self { cancel: Cancel::new(), leave_at_once: Arc::default(), folder: Arc::default() };
        let handler = interrupt.clone();
        ctrlc::set_handler(move || {
            if handler.leave_at_once.load(Ordering::Acquire) {
                std::process::exit(Exit::Ok as i32);
            }
            if handler.cancel.is_cancelled() {
                handler.clean_up();
                std::process::exit(Exit::Interrupted as i32);
            }
            handler.cancel.cancel();
            let _ = writeln!(std::io::stderr(), "stopping cleanly; press Ctrl-C again to stop at once");
        })?;
        Ok(INTERRUPT.get_or_init(|| interrupt))
    }

    /// Set by the first signal.
    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// From now on a signal ends the process at once, with success: there is nothing left to save.
    pub(crate) fn leave_at_once(&self) {
        self.leave_at_once.store(true, Ordering::Release);
    }

    /// Makes the second signal remove this folder: it ends the process without running destructors.
    pub(crate) fn remove_at_exit(&self, folder: &Path) {
        *self.folder.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder.to_owned());
    }

    /// Kills what would outlive the process, and removes its folder. The work is cancelled, so nothing starts again.
    fn clean_up(&self) {
        nanochat_eval::sandbox::kill_all();
        if let Some(folder) = &*self.folder.lock().unwrap_or_else(PoisonError::into_inner) {
            // It may be gone already, and there is nobody to tell.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_signal_leaves_no_temporary_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("key.secret"), "secret").expect("a file");
        let interrupt = Interrupt { cancel: Cancel::new(), leave_at_once: Arc::default(), folder: Arc::default() };
        interrupt.remove_at_exit(folder.path());
        interrupt.clean_up();
        assert!(!folder.path().exists());
    }
}
