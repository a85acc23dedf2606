//! One run, from options to outcome. The stages hand each other what they made; the last three work on one owner of the
//! run's state, the trainer.
//!
//! ```text
//! prepare     Options → Task (recipe, corpus, tokens) and where to start: fresh, resumed, or as an update
//! resume      Task and start → Trainer, measured once if it is not resumed
//! find_rate   steps at growing rates, undone, if the options ask for it
//! steps       forward, backward, update; measured and saved on the way; the clock gives each its learning rate
//! finish      calibrate the blend, measure → Outcome
//! ```
//!
//! A run that is cancelled in any stage saves its state, is resumed by the next call and ends with the same bits.

mod task;
mod prepare;
mod trainer;
mod checkpoint;
mod find_rate;
mod resume;
mod clock;
mod steps;
mod finish;

use std::path::Path;

use nanochat_engine::Cancel;

use crate::{Event, Options, Outcome, PackedCorpus, TrainError};
use trainer::Trainer;

/// Trains. Saves its state and returns early, with `finished: false`, when cancelled.
pub fn train(options: &Options, events: &mut dyn FnMut(Event), cancel: &Cancel) -> Result<Outcome, TrainError> {
    options.device.check()?;
    let (task, start) = prepare::prepare(options, events)?;
    let mut trainer = Trainer::new(task)?;
    events(trainer.task.tokenizer_event());
    if trainer.start(start, events, cancel)? && trainer.steps(events, cancel)? {
        trainer.finish(cancel)
    } else {
        trainer.unfinished()
    }
}

/// Writes the tokens of the corpus to a file of its own, for [`Options::packed`] on another machine. The tokenizer is
/// learned as for a fresh run, or is the base's.
pub fn pack(options: &Options, path: &Path, events: &mut dyn FnMut(Event)) -> Result<PackedCorpus, TrainError> {
    prepare::pack(options, path, events)
}
