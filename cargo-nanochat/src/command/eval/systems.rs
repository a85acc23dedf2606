//! The systems that are compared: the product and its ablations, baselines, and other systems.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nanochat_engine::complete::Predictors;
use nanochat_engine::{Cancel, Checkpoint, Completer, Tokenizer};
use nanochat_eval::system::server::{Fim, ServerError, ServerOptions};
use nanochat_eval::system::{Copy, Empty, Model, Ngram, RandomLine, Server, System, Truth};

use crate::completion::completer;
use crate::context::Context;
use crate::exit::InputError;
use crate::values::duration;

/// Flags of the systems.
#[derive(Debug, Args)]
#[command(next_help_heading = "Systems")]
pub(super) struct SystemArgs {
    /// Another system: an OpenAI-compatible or llama.cpp server, e.g. http://localhost:8080; may be repeated
    #[arg(long = "system", value_name = "URL")]
    servers: Vec<String>,
    /// How servers are asked to fill in the middle [default: by the model's name, else llama.cpp's /infill]
    #[arg(long, value_enum, value_name = "FAMILY", requires = "servers")]
    fim: Option<FimArg>,
    /// Which of a server's models, where it has several
    #[arg(long, value_name = "NAME", requires = "servers")]
    system_model: Option<String>,
    /// Longest time that a server may take for one completion
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    system_timeout: Duration,
    /// Send code to a server that is not on this machine
    #[arg(long, requires = "servers")]
    allow_remote: bool,
    /// A checkpoint to compare with, e.g. the one that training started from; it is called `base`, and
    /// `base-without-memory` where its model is used alone
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Only these systems, besides truth and empty; names are those of the table
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
}

/// `--fim`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FimArg {
    Qwen,
    Starcoder,
    Codegemma,
    Deepseek,
    Infill,
}

/// Completers of the checkpoints; the systems borrow them.
#[derive(Debug)]
pub(super) struct Completers {
    product: Option<Completer>,
    base: Option<Completer>,
    tokenizer: Arc<Tokenizer>,
    label: String,
}

impl Completers {
    /// Identifies the checkpoints: a run with other checkpoints must not resume this one.
    pub(super) fn label(&self) -> String {
        self.label.clone()
    }
}

impl SystemArgs {
    /// Opens what the systems need. `checkpoint` is the product's.
    pub(super) fn completers(
        &self,
        context: &Context,
        checkpoint: Option<&Checkpoint>,
        n_threads: usize,
    ) -> anyhow::Result<Completers> {
        let base = self.base.as_deref().map(|path| context.store.open_checkpoint(path)).transpose()?;
        let any = checkpoint.or(base.as_ref());
        let hashes = [checkpoint, base.as_ref()].map(|open| open.map_or_else(String::new, |open| open.manifest.hash()));
        let load = |checkpoint: &Checkpoint| {
            completer(checkpoint, &[], n_threads, &context.plans(&checkpoint.manifest.config, n_threads))
        };
        Ok(Completers {
            label: format!("{} {} {:?}", hashes[0], hashes[1], self.fim),
            tokenizer: any.map_or_else(|| Arc::new(Tokenizer::bytes()), |any| Arc::clone(&any.tokenizer)),
            product: checkpoint.map(load),
            base: base.as_ref().map(load),
        })
    }

    /// Connects to the servers and names all that take part, in the order of the report.
    pub(super) fn systems<'a>(
        &self,
        completers: &'a mut Completers,
        cancel: &Cancel,
    ) -> anyhow::Result<Vec<Box<dyn System + 'a>>> {
        let mut all: Vec<Box<dyn System + 'a>> = vec![
            Box::new(Truth::default()),
            Box::new(Empty),
            Box::new(RandomLine),
            Box::new(Copy::new(Arc::clone(&completers.tokenizer))),
            Box::new(Ngram::new(Arc::clone(&completers.tokenizer))),
        ];
        for url in &self.servers {
            all.push(Box::new(self.connect(url, cancel)?));
        }
        if let Some(base) = &mut completers.base {
            let base = Model::named("base", base);
            all.push(Box::new(base.ablation(Predictors::ModelOnly)));
            all.push(Box::new(base));
        }
        if let Some(product) = &mut completers.product {
            let product = Model::new(product);
            for predictors in [Predictors::MemoryOnly, Predictors::ModelOnly] {
                all.push(Box::new(product.ablation(predictors)));
            }
            all.push(Box::new(product));
        }
        let names: Vec<String> = all.iter().map(|system| system.name().to_owned()).collect();
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(InputError(format!("two systems are called {}; evaluate one server at a time", twice.1)).into());
        }
        if let Some(unknown) = self.only.iter().find(|only| !names.contains(only)) {
            return Err(InputError(format!("there is no system {unknown}; there are {}", names.join(", "))).into());
        }
        let is_control = |name: &str| ["truth", "empty"].contains(&name);
        all.retain(|system| {
            let name = system.name();
            self.only.is_empty() || is_control(name) || self.only.iter().any(|only| only == name)
        });
        Ok(all)
    }

    fn connect(&self, url: &str, cancel: &Cancel) -> Result<Server, ServerError> {
        let options = ServerOptions {
            url: url.to_owned(),
            fim: self.fim.map(Fim::from),
            model: self.system_model.clone(),
            timeout: self.system_timeout,
            allow_remote: self.allow_remote,
        };
        Server::connect(&options, cancel)
    }
}

impl From<FimArg> for Fim {
    fn from(fim: FimArg) -> Self {
        match fim {
            FimArg::Qwen => Self::Qwen,
            FimArg::Starcoder => Self::StarCoder,
            FimArg::Codegemma => Self::CodeGemma,
            FimArg::Deepseek => Self::DeepSeek,
            FimArg::Infill => Self::Infill,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_called_as_the_library_calls_it() {
        let families: Vec<(String, Fim)> = FimArg::value_variants()
            .iter()
            .map(|fim| (fim.to_possible_value().expect("it is shown").get_name().to_owned(), Fim::from(*fim)))
            .collect();
        assert_eq!(families, Fim::ALL.map(|fim| (fim.name().to_owned(), fim)));
    }
}
