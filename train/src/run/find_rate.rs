//! The range test before a run: steps at growing learning rates, all undone.

use nanochat_engine::Cancel;

use super::trainer::Trainer;
use crate::lr_finder::RangeTest;
use crate::{Event, TrainError};

impl Trainer {
    /// Makes steps at growing rates, undoes them and keeps the rate at which the loss fell fastest. False if it was
    /// cancelled.
    pub(super) fn find_rate(&mut self, events: &mut dyn FnMut(Event), cancel: &Cancel) -> Result<bool, TrainError> {
        let start = self.snapshot();
        let mut test = RangeTest::default();
        while let Some(rate) = test.next() {
            if cancel.is_cancelled() {
                break;
            }
            let Some(loss) = self.one_step(rate)? else { break };
            test.push(loss);
            events(Event::Searched { step: self.step, total: RangeTest::STEPS, rate, loss });
        }
        self.restore(start);
        if cancel.is_cancelled() {
            return Ok(false);
        }
        self.rate = test.best();
        events(Event::Found { rate: self.rate });
        Ok(true)
    }
}
