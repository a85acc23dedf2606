//! The weights of a run as a checkpoint, and the figures of that on held-out text.

use std::sync::Arc;

use nanochat_engine::checkpoint::{Manifest, PackedWeights, Training};
use nanochat_engine::memory::Blend;
use nanochat_engine::{Cancel, Checkpoint};

use super::task::Task;
use super::trainer::Trainer;
use crate::measure::{self, Figures};
use crate::{TrainError, export};

impl Trainer {
    /// The base's mixing weights of model and memory, or the built-in ones: what is used until those of this workspace
    /// are calibrated.
    pub(super) fn initial_blend(&self) -> Blend {
        self.task.base.as_ref().map_or_else(Blend::default, |base| base.blend.clone())
    }

    /// A checkpoint of the weights as they are, and its figures on the half of the held-out text that no calibration
    /// has seen. `None` where it was cancelled.
    pub(super) fn measure(&self, blend: Blend, cancel: &Cancel) -> Result<Option<(Checkpoint, Figures)>, TrainError> {
        let checkpoint = self.checkpoint(blend)?;
        let Task { corpus, shards, settings, .. } = &self.task;
        let memory = measure::memory(shards);
        let (_, report) = measure::halves(&corpus.held_out);
        let figures = measure::held_out(&checkpoint, &memory, &report, settings.n_threads, cancel);
        let Ok(mut figures) = figures else { return Ok(None) };
        figures.total.general = self.general.as_ref().map(|text| self.bits_per_byte(text)).transpose()?;
        Ok(Some((checkpoint, figures)))
    }

    /// A checkpoint of the weights as they are, to be signed by the caller.
    pub(super) fn checkpoint(&self, blend: Blend) -> Result<Checkpoint, TrainError> {
        let Task { corpus, shards, fingerprint, tokenizer, base, base_hash, settings, .. } = &self.task;
        let trained = shards.trained();
        let base_fingerprint = base.as_ref().map(|base| &base.manifest.training.fingerprint);
        let training = Training {
            corpus_hash: corpus.hash.clone(),
            n_files: trained.len() as u64,
            n_tokens: shards.n_tokens(trained) as u64,
            n_steps: self.step as u64,
            fingerprint: base_fingerprint.map_or_else(|| fingerprint.clone(), |base| fingerprint.with(base)),
        };
        let mut manifest = Manifest::new(settings.model_id.clone(), self.params.config.clone(), training);
        manifest.licences = corpus.licences.clone();
        if let Some(base) = base {
            manifest.lineage = base.manifest.lineage.iter().cloned().chain([base_hash.clone()]).collect();
        }
        let weights = Arc::new(PackedWeights::pack(&export::weights(&self.served()))?);
        Ok(Checkpoint { manifest, tokenizer: tokenizer.clone(), weights, blend })
    }
}
