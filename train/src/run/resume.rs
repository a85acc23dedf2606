//! Where a run starts: fresh, from its own saved state, or from the weights of a finished run over an earlier corpus.

use nanochat_engine::Cancel;

use super::clock::Clock;
use super::task::load_state;
use super::trainer::Trainer;
use crate::data::Corpus;
use crate::data::learned::{Changes, Learned};
use crate::state::{self, State};
use crate::{Event, Options, Recipe, TrainError};

/// What a run starts from.
pub(super) enum Start {
    /// Fresh weights, or those of the base.
    Fresh,
    /// The saved state of the same run.
    Resume(Box<State>),
    /// The weights of a finished run, most of whose corpus is unchanged.
    Update(Box<State>),
}

/// What a run starts from, and over which corpus.
pub(super) struct Plan {
    /// The corpus; in an update, with each known file on the side of the split where it was.
    pub(super) corpus: Corpus,
    pub(super) start: Start,
    /// Hash of the corpus of the finished run that is updated.
    pub(super) since: Option<String>,
    /// What is new in the corpus since then.
    pub(super) changes: Option<Changes>,
}

impl Plan {
    /// A whole run, not an update.
    fn whole(corpus: Corpus, start: Start) -> Self {
        Self { corpus, start, since: None, changes: None }
    }
}

/// Decides by the saved state of `options.state_dir` where a run over `corpus` starts. An unfinished state of another
/// recipe, corpus or base is an error, so that nothing is lost unasked.
pub(super) fn plan(
    options: &Options,
    recipe: &Recipe,
    corpus: Corpus,
    base_hash: &str,
    restart: bool,
) -> Result<Plan, TrainError> {
    if restart {
        return Ok(Plan::whole(corpus, Start::Fresh));
    }
    let state_dir = &options.state_dir;
    let Some(state) = load_state(state_dir, state::FILE_NAME, options.base.as_ref(), recipe)?.map(Box::new) else {
        return Ok(Plan::whole(corpus, Start::Fresh));
    };
    let learned = Learned::load(state_dir)?;
    let check = |corpus: &Corpus| state.check(state_dir, &recipe.hash(), &corpus.hash, base_hash);
    if !state.finished {
        // An update keeps the split of the run that it updates.
        let learned = learned.filter(|learned| state.since.as_ref() == Some(&learned.corpus));
        let corpus = learned.as_ref().map_or(corpus.clone(), |learned| learned.keep_sides(corpus));
        check(&corpus)?;
        let changes = learned.and_then(|learned| learned.changes(&corpus));
        let since = state.since.clone();
        return Ok(Plan { corpus, start: Start::Resume(state), since, changes });
    }
    let Some(learned) = learned.filter(|learned| learned.corpus == state.corpus) else {
        // Nothing is lost by a fresh start: the result of a finished run is in its checkpoint.
        return Ok(match check(&corpus) {
            Ok(()) => Plan::whole(corpus, Start::Resume(state)),
            Err(_) => Plan::whole(corpus, Start::Fresh),
        });
    };
    let kept = learned.keep_sides(corpus.clone());
    if check(&kept).is_ok() {
        // A finished update has no steps left; a whole run may be continued with more steps.
        let changes = state.since.is_some().then(Changes::none);
        return Ok(Plan { corpus: kept, since: state.since.clone(), start: Start::Resume(state), changes });
    }
    let has_same_recipe = state.recipe == recipe.hash() && state.base == base_hash;
    Ok(match learned.changes(&kept).filter(|_| has_same_recipe) {
        Some(changes) => {
            let since = Some(state.corpus.clone());
            Plan { corpus: kept, start: Start::Update(state), since, changes: Some(changes) }
        }
        None => Plan::whole(corpus, Start::Fresh),
    })
}

/// The fewest steps that learn anything new.
const LEAST_UPDATE: usize = 12;
/// How much longer than its share of a whole run the changed text is trained on: little text needs more passes.
const UPDATE_GAIN: f64 = 4.0;

/// Number of steps of an update, by the options or by the share of the corpus that has changed; `steps` is that of a
/// whole run.
pub(super) fn update_steps(asked: Option<usize>, steps: usize, changes: &Changes) -> usize {
    match (asked, changes.changed.is_empty()) {
        (_, true) => 0,
        (Some(asked), _) => asked,
        (None, _) => {
            ((steps as f64 * UPDATE_GAIN * changes.share).ceil() as usize).clamp(LEAST_UPDATE.min(steps), steps)
        }
    }
}

impl Trainer {
    /// Takes over the weights that the run starts from. A run that is not resumed is measured first, and its learning
    /// rates are found if the options ask for it. False if it was cancelled.
    pub(super) fn start(
        &mut self,
        start: Start,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<bool, TrainError> {
        match start {
            Start::Resume(state) => {
                self.resume(*state);
                events(Event::Resumed { step: self.step });
                return Ok(true);
            }
            Start::Update(state) => {
                self.restore(state.now);
                (self.step, self.moments) = (0, self.task.recipe.optimizer.moments(&self.params));
                self.rate = state.rate;
            }
            Start::Fresh => {}
        }
        let Some((_, figures)) = self.measure(self.initial_blend(), cancel)? else { return Ok(false) };
        self.before = figures;
        Ok(!self.task.settings.find_lr || self.find_rate(events, cancel)?)
    }

    /// Continues from a state. One that is in the decay of a shorter run goes back to where that decay started: raising
    /// the rate again from a decayed model would throw away what the decay gained.
    fn resume(&mut self, state: State) {
        let State { now, stable, best, before, rate, .. } = state;
        (self.before, self.rate, self.best) = (before, rate, best);
        let schedule = &self.task.recipe.schedule;
        let (now, stable) = match stable {
            Some(stable) if Clock::goes_beyond(stable.step, schedule, self.task.settings.time_budget_s) => {
                self.best = self.best.take().filter(|best| best.step <= stable.step);
                (stable, None)
            }
            stable => (now, stable),
        };
        self.restore(now);
        self.stable = stable;
    }
}
