//! The end of a run: the blend is calibrated, the checkpoint measured, the state marked as finished.

use nanochat_engine::Cancel;
use nanochat_engine::checkpoint::Record;

use super::task::Task;
use super::trainer::Trainer;
use crate::{Outcome, TrainError, curve, measure, state};

impl Trainer {
    /// Calibrates and measures. Only then is the state that of a finished run, which one over another corpus may
    /// replace.
    pub(super) fn finish(mut self, cancel: &Cancel) -> Result<Outcome, TrainError> {
        self.take_best();
        let Task { corpus, shards, settings, .. } = &self.task;
        let (calibration, _) = measure::halves(&corpus.held_out);
        let memory = measure::memory(shards);
        let uncalibrated = self.checkpoint(self.initial_blend())?;
        let blend = measure::calibrate(&uncalibrated, &memory, &calibration, settings.n_threads, cancel);
        let Ok(blend) = blend else { return self.unfinished() };
        let Some((mut checkpoint, after)) = self.measure(blend, cancel)? else { return self.unfinished() };
        self.save(state::FILE_NAME, true)?;
        self.task.learned.save(&settings.state_dir)?;
        checkpoint.manifest.record = Some(Record {
            weights_hash: String::new(), // the writer binds it to the section that it writes
            model_bits_per_byte: after.total.model,
            memory_bits_per_byte: after.total.memory,
            blend_bits_per_byte: after.total.blend,
        });
        Ok(Outcome {
            checkpoint,
            before: self.before.total,
            after: after.total,
            gain: self.before.gain(&after),
            held_out: self.task.held_out_files(),
            finished: true,
            curve: Some(curve::save(&settings.state_dir, self.journal.entries())?),
        })
    }

    /// What an interrupted run returns: its weights as they are, not measured.
    pub(super) fn unfinished(self) -> Result<Outcome, TrainError> {
        let checkpoint = self.checkpoint(self.initial_blend())?;
        let before = self.before.total;
        let held_out = self.task.held_out_files();
        Ok(Outcome { checkpoint, before, after: before, gain: None, held_out, finished: false, curve: None })
    }

    /// Takes the best masters in place of the last, where the recipe stops early.
    fn take_best(&mut self) {
        let Some(best) = &self.best else { return };
        self.params.list.iter_mut().zip(&best.values).for_each(|(param, best)| param.values.clone_from(best));
        self.averages.iter_mut().zip(&best.values).for_each(|(average, best)| average.clone_from(best));
    }
}
