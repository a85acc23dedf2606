//! Reads the output of a command while it runs.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Kept of each output stream; what exceeds it is read and dropped, so that the writer does not block.
const MAX_OUTPUT_BYTES: usize = 32 << 20;

/// The bytes read from one pipe so far, and whether it has ended.
pub(super) struct Stream(Arc<Mutex<(Vec<u8>, bool)>>);

impl Stream {
    pub(super) fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let shared = Arc::new(Mutex::new((Vec::new(), pipe.is_none())));
        if let Some(mut pipe) = pipe {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                loop {
                    let n = pipe.read(&mut buffer);
                    let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    match n {
                        Ok(n) if n > 0 => {
                            let room = MAX_OUTPUT_BYTES.saturating_sub(state.0.len());
                            state.0.extend_from_slice(&buffer[..n.min(room)]);
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        _ => {
                            state.1 = true;
                            return;
                        }
                    }
                }
            });
        }
        Self(shared)
    }

    /// Everything up to the end of the stream, or what is there at `give_up`.
    pub(super) fn take(&self, give_up: Instant) -> Vec<u8> {
        loop {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.1 || Instant::now() >= give_up {
                return std::mem::take(&mut state.0);
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
