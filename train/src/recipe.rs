//! The description of a run, with every number stated. Recipes are TOML; unknown keys are refused.

use std::path::Path;

use nanochat_engine::Config;
use serde::{Deserialize, Serialize};

use crate::data::DataRecipe;
use crate::ops::MatmulPrecision;
use crate::optim::{Method, Optimizer};
use crate::quantize::WeightFormat;
use crate::schedule::Schedule;

/// Everything that decides what a run does, but for the code that it trains on.
///
/// ```
/// use nanochat_train::Recipe;
/// use nanochat_train::recipe::RecipeError;
///
/// let mut recipe = Recipe::load("default")?; // built in; a path to a file works too
/// recipe.schedule.steps = 600;
/// let text = toml::to_string(&recipe).expect("a recipe is numbers and text");
/// assert_eq!(Recipe::parse("mine", &text)?, recipe);
///
/// let text = format!("dropout = 0.1\n{text}");
/// let error = Recipe::parse("mine", &text).expect_err("there is no such key");
/// assert!(matches!(error, RecipeError::Syntax { .. }));
/// assert!(error.to_string().contains("unknown field `dropout`"));
/// # Ok::<(), RecipeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Seed of the initial weights, the batches and the split.
    pub seed: u64,
    /// Precision of matrix products.
    pub precision: StepPrecision,
    /// Format that hidden matrices are rounded to.
    pub weights: WeightFormat,
    /// Weight of the entropy bonus, subtracted from the loss per nat of a prediction's entropy (arXiv 1701.06548); 0
    /// turns it off.
    pub entropy: f32,
    /// Architecture; `vocab_size` is an upper bound that a small workspace may not reach.
    pub model: Config,
    /// Shape of a step, and the shares of its sequences.
    pub data: DataRecipe,
    /// Number of steps, and the learning rate over them.
    pub schedule: Schedule,
    /// Optimizers and their hyperparameters.
    pub optimizer: Optimizer,
    /// How often the run is measured and saved.
    pub measure: Measure,
}

/// Precision of the matrix products of a step. Weights, gradients and all sums are always f32, and products of rounded
/// numbers are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepPrecision {
    /// 32-bit floats: the same bits on every CPU with the same number of threads.
    F32,
    /// Both sides rounded to bf16 before they are multiplied: the same bits on CPUs with the same bf16 instructions.
    Bf16,
    /// As bf16, but gradients of what goes into ternary matrices by integers, of rows rounded to int8.
    Int8,
    /// The fastest of the three on this CPU.
    Fastest,
}

impl StepPrecision {
    /// What this means on this CPU.
    pub fn resolve(self) -> MatmulPrecision {
        use nanochat_kernels::Precision;
        match self {
            Self::F32 => Precision::F32.into(),
            Self::Bf16 => Precision::Bf16.into(),
            Self::Int8 => MatmulPrecision { precision: Precision::Bf16, int8_gradients: true },
            Self::Fastest => MatmulPrecision::fastest(),
        }
    }
}

/// How often a run is measured and saved, and when it stops early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// Number of steps between measurements of held-out bits per byte.
    pub every: usize,
    /// Number of held-out sequences that are measured, spread evenly.
    pub sequences: usize,
    /// Number of steps between saves of the state.
    pub save_every: usize,
    /// Early stopping: a run ends after this many measurements that are no better than the best before them, and keeps
    /// the best masters. 0 turns it off.
    pub patience: usize,
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// Neither a built-in name nor a file that can be read.
    #[error("no recipe `{name}`: built in are {}; a path to a file also works ({source})", BUILT_IN.map(|(name, _)| name).join(", "))]
    Missing {
        /// The name or path as given.
        name: String,
        /// Why it cannot be read as a file.
        source: std::io::Error,
    },
    /// Not valid TOML, a missing number, or an unknown key.
    #[error("recipe {name}: {source}")]
    Syntax {
        /// Name or path of the recipe.
        name: String,
        /// The error with its position.
        source: Box<toml::de::Error>,
    },
    /// The architecture is not possible.
    #[error("recipe {name}: {source}")]
    Model {
        /// Name or path of the recipe.
        name: String,
        /// What is wrong with the architecture.
        source: nanochat_engine::model::config::ConfigError,
    },
    /// It can be trained but not served.
    #[error("recipe {name}: {reason}")]
    NotServed {
        /// Name or path of the recipe.
        name: String,
        /// What the engine lacks, and what to write instead.
        reason: &'static str,
    },
    /// A number is out of range.
    #[error("recipe {name}: {rule}")]
    Rule {
        /// Name or path of the recipe.
        name: String,
        /// The rule that the number breaks.
        rule: &'static str,
    },
}

const BUILT_IN: [(&str, &str); 5] = [
    ("default", include_str!("../recipes/default.toml")),
    ("try", include_str!("../recipes/try.toml")),
    ("test", include_str!("../recipes/test.toml")),
    ("base", include_str!("../recipes/base.toml")),
    ("adapt", include_str!("../recipes/adapt.toml")),
];

impl Recipe {
    /// Loads a built-in recipe by its name, or a file by its path.
    pub fn load(name: &str) -> Result<Self, RecipeError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Self::parse(name, text);
        }
        let text = std::fs::read_to_string(Path::new(name))
            .map_err(|source| RecipeError::Missing { name: name.to_owned(), source })?;
        Self::parse(name, &text)
    }

    /// Parses TOML and checks every number; `name` is for error messages.
    pub fn parse(name: &str, text: &str) -> Result<Self, RecipeError> {
        let name = name.to_owned();
        let recipe: Self =
            toml::from_str(text).map_err(|e| RecipeError::Syntax { name: name.clone(), source: Box::new(e) })?;
        recipe.model.validate().map_err(|source| RecipeError::Model { name: name.clone(), source })?;
        let Self { model, data, schedule, optimizer, measure, .. } = &recipe;
        let finite = |values: &[f64]| values.iter().all(|v| v.is_finite() && *v >= 0.0);
        let rules = [
            (data.seq_len >= 32, "seq_len is at least 32"),
            // Documents start at position 0: positions beyond a sequence are never trained.
            (model.context <= data.seq_len, "context is at most seq_len"),
            (data.sequences > 0 && data.sequences <= 4096, "sequences is within 1..=4096"),
            (
                data.micro_sequences > 0 && data.sequences.is_multiple_of(data.micro_sequences),
                "micro_sequences divides sequences",
            ),
            ((0.0..=1.0).contains(&data.fim_rate), "fim_rate is within 0..=1"),
            ((0.0..=1.0).contains(&data.snippet_rate), "snippet_rate is within 0..=1"),
            ((0.0..=1.0).contains(&data.declared_rate), "declared_rate is within 0..=1"),
            ((0.01..=0.5).contains(&data.held_out_share), "held_out_share is within 0.01..=0.5"),
            ((0.0..=0.9).contains(&data.replay_share), "replay_share is within 0..=0.9"),
            ((0.0..=1.0).contains(&recipe.entropy), "entropy is within 0..=1"),
            ((0.0..1.0).contains(&optimizer.ema), "optimizer.ema is at least 0 and below 1"),
            (optimizer.rest != Method::Muon, "optimizer.rest is not muon, which is for hidden matrices only"),
            (
                optimizer.lion.is_some() || ![optimizer.hidden, optimizer.rest].contains(&Method::Lion),
                "optimizer.lion states the numbers of the lion that is named",
            ),
            (
                optimizer.adamw.is_some() || ![optimizer.hidden, optimizer.rest].contains(&Method::AdamW),
                "optimizer.adamw states the numbers of the adamw that is named",
            ),
            (
                optimizer.adamw.as_ref().is_none_or(|adamw| {
                    finite(&[adamw.lr, adamw.lr_gains, adamw.eps.into()])
                        && [adamw.beta1, adamw.beta2].iter().all(|beta| (0.0..1.0).contains(beta))
                }),
                "adamw's numbers are finite and not negative, its betas below 1",
            ),
            (schedule.steps > 0, "steps is at least 1"),
            ((0.0..=1.0).contains(&schedule.decay_share), "decay_share is within 0..=1"),
            (measure.every > 0 && measure.sequences > 0 && measure.save_every > 0, "measure's numbers are at least 1"),
            (
                finite(&[optimizer.muon.lr])
                    && optimizer.lion.as_ref().is_none_or(|lion| finite(&[lion.lr, lion.lr_gains]))
                    && optimizer.clip_norm.is_finite()
                    && optimizer.clip_norm > 0.0,
                "rates are finite and not negative, clip_norm is above 0",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(RecipeError::Rule { name, rule }),
            None => Ok(recipe),
        }
    }

    /// Refuses a recipe whose weights the engine cannot run.
    pub fn check_served(&self, name: &str) -> Result<(), RecipeError> {
        match self.weights {
            WeightFormat::Ternary => Ok(()),
            WeightFormat::Int4 | WeightFormat::Int8 | WeightFormat::Full => Err(RecipeError::NotServed {
                name: name.to_owned(),
                reason: "the engine multiplies ternary weights only: write weights = \"ternary\"; what others would gain \
                         is measured by `cargo run --release -p nanochat-train --example ablate`",
            }),
        }
    }

    /// Identifies a recipe: two runs with equal hashes do the same. The number of steps and the decay share are not
    /// part of it: a resumed run may change both.
    pub fn hash(&self) -> String {
        let mut recipe = self.clone();
        // States hold hashes over these two numbers.
        (recipe.schedule.steps, recipe.schedule.decay_share) = (0, 0.5);
        let json = serde_json::to_vec(&recipe).expect("a recipe is numbers and text");
        blake3::hash(&json).to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_recipe_is_valid() {
        for (name, _) in BUILT_IN {
            Recipe::load(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let text = format!("surprise = 1\n{}", BUILT_IN[2].1);
        let error = Recipe::parse("x", &text).expect_err("the key is unknown").to_string();
        assert!(error.contains("surprise"), "{error}");
    }

    #[test]
    fn what_the_engine_cannot_run_is_refused_with_a_reason() {
        let text = BUILT_IN[2].1.replace("weights = \"ternary\"", "weights = \"int8\"");
        let recipe = Recipe::parse("x", &text).expect("it can be trained");
        let error = recipe.check_served("x").expect_err("it cannot be served").to_string();
        assert!(error.contains("ternary weights only"), "{error}");
    }

    #[test]
    fn an_optimizer_without_its_hyperparameters_is_refused() {
        let text = BUILT_IN[2].1.replace("rest = \"lion\"", "rest = \"adamw\"");
        let error = Recipe::parse("x", &text).expect_err("it has no numbers").to_string();
        assert!(error.contains("optimizer.adamw"), "{error}");
        let text = BUILT_IN[2].1.split_once("[optimizer.lion]").expect("it has lion");
        let text = format!("{}{}", text.0, text.1.split_once("\n\n").expect("more follows").1);
        let error = Recipe::parse("x", &text).expect_err("it has no numbers").to_string();
        assert!(error.contains("optimizer.lion"), "{error}");
        let text = BUILT_IN[2].1.replace("rest = \"lion\"", "rest = \"muon\"");
        assert!(Recipe::parse("x", &text).is_err());
    }

    #[test]
    fn a_run_may_be_made_longer_and_fall_sooner_but_not_learn_in_another_way() {
        let recipe = Recipe::load("base").expect("it is built in");
        let mut longer = recipe.clone();
        (longer.schedule.steps, longer.schedule.decay_share) = (9_999, 1.0);
        assert_eq!(longer.hash(), recipe.hash());
        longer.schedule.warmup_steps += 1;
        assert_ne!(longer.hash(), recipe.hash());
    }

    #[test]
    fn a_missing_number_is_refused() {
        let text = BUILT_IN[2].1.replace("clip_norm", "# clip_norm");
        assert!(matches!(Recipe::parse("x", &text), Err(RecipeError::Syntax { .. })));
    }

    #[test]
    fn prompts_longer_than_what_is_trained_are_refused() {
        let text = BUILT_IN[2].1.replace("context = 128", "context = 129");
        let error = Recipe::parse("x", &text).expect_err("a sequence has 128 tokens").to_string();
        assert!(error.contains("context is at most seq_len"), "{error}");
    }

    #[test]
    fn an_unknown_name_says_which_there_are() {
        let error = Recipe::load("no-such-recipe").expect_err("no such file").to_string();
        assert!(error.contains("default, try, test"), "{error}");
    }
}
