//! What each choice of a recipe is worth at equal time: `ablate OUT.csv SECONDS SEEDS FOLDER… [--only GROUP]…`.
//!
//! Trains small models on one core, each as many steps as fit into the time. What a step of a variant takes is measured
//! once, in turns with a step of the recipe that it varies, and the median of several quotients is taken: neighbours on
//! the machine change little of how long a run is and nothing of what comes out of it. Appends a line per run; runs
//! that are in the file already are left out, so that a killed one can be continued. What was found is in `LOG.md`.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nanochat_engine::prompt::document;
use nanochat_engine::rng::Rng;
use nanochat_engine::workspace::sources::{Role, SourceFile};
use nanochat_engine::{Config, Sources, Tokenizer};
use nanochat_kernels::{Activation, ScaleGroup};
use nanochat_train::Recipe;
use nanochat_train::backend::Backend;
use nanochat_train::data::Batch;
use nanochat_train::data::corpus::Corpus;
use nanochat_train::data::documents::Documents;
use nanochat_train::data::packages::Packages;
use nanochat_train::data::tokenizer;
use nanochat_train::measure::ValidationSet;
use nanochat_train::model::{Graph, Params};
use nanochat_train::optim::lion::Lion;
use nanochat_train::optim::moments::MomentFormat;
use nanochat_train::optim::{Method, Moments, Update};
use nanochat_train::pool::Pool;
use nanochat_train::quantize::WeightFormat;
use nanochat_train::recipe::StepPrecision;

// glibc gives large pages back on each free, which is 40 % of a step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 4.4M parameters: what learns something in a minute.
const SHAPE: &str = "d256 l3 h4 kv1 ff768 v8192 n1";
const SEQ_LEN: usize = 256;
/// The most text that a tokenizer is learned from.
const MAX_TOKENIZER_BYTES: usize = 4 << 20;
/// What all others are measured in.
const RECIPE: &str = "recipe base";
/// Pairs of steps that are timed, after one that is not.
const TIMED_PAIRS: usize = 9;

type Change = fn(&mut Recipe);

/// Group, name, what it changes.
const VARIANTS: &[(&str, &str, Change)] = &[
    ("recipe", "base", |_| {}),
    ("precision", "bf16", |r| r.precision = StepPrecision::Bf16),
    ("precision", "f32", |r| r.precision = StepPrecision::F32),
    ("weights", "full", |r| r.weights = WeightFormat::Full),
    ("weights", "int8", |r| r.weights = WeightFormat::Int8),
    ("weights", "int4", |r| r.weights = WeightFormat::Int4),
    ("scales", "row", |r| r.model.scales = ScaleGroup::Row),
    ("scales", "columns128", |r| r.model.scales = ScaleGroup::Columns(128)),
    ("streams", "2", |r| r.model.n_streams = 2),
    ("streams", "4", |r| r.model.n_streams = 4),
    ("activation", "relu2", |r| r.model.activation = Activation::Relu2),
    ("optimizer", "muon+lion 0.001", |r| lion(r, 0.001)),
    ("optimizer", "muon+lion 0.003", |r| lion(r, 0.003)),
    ("optimizer", "muon+adamw 0.003", |r| adamw(r, Method::Muon, 0.003)),
    ("optimizer", "muon+adamw 0.012", |r| adamw(r, Method::Muon, 0.012)),
    ("optimizer", "adamw 0.003", |r| adamw(r, Method::AdamW, 0.003)),
    ("optimizer", "adamw 0.006", |r| adamw(r, Method::AdamW, 0.006)),
    ("optimizer", "8 bits", |r| r.optimizer.moments = MomentFormat::Int8),
    ("optimizer", "ema 0.98", |r| r.optimizer.ema = 0.98),
    ("rates", "half", |r| rates(r, 0.5)),
    ("rates", "twice", |r| rates(r, 2.0)),
    ("entropy", "0.02", |r| r.entropy = 0.02),
    ("fim", "0", |r| r.data.fim_rate = 0.0),
    ("fim", "0.25", |r| r.data.fim_rate = 0.25),
    ("fim", "0.75", |r| r.data.fim_rate = 0.75),
    ("vocab", "4096", |r| r.model.vocab_size = 4096),
    ("vocab", "16384", |r| r.model.vocab_size = 16384),
    ("shape", "deep", |r| shape(r, "d192 l6 h4 kv1 ff576 v8192 n1")),
    ("shape", "wide", |r| shape(r, "d384 l1 h4 kv1 ff1152 v8192 n1")),
];

fn adamw(recipe: &mut Recipe, hidden: Method, lr: f64) {
    recipe.optimizer.hidden = hidden;
    recipe.optimizer.rest = Method::AdamW;
    let numbers = recipe.optimizer.adamw.as_mut().expect("the recipe has them");
    (numbers.lr, numbers.lr_gains) = (lr, lr);
}

fn lion(recipe: &mut Recipe, lr: f64) {
    recipe.optimizer.rest = Method::Lion;
    recipe.optimizer.lion = Some(Lion { lr, lr_gains: 2.0 * lr, beta1: 0.9, beta2: 0.99, weight_decay: 0.1 });
}

fn rates(recipe: &mut Recipe, factor: f64) {
    recipe.optimizer.muon.lr *= factor;
    let adamw = recipe.optimizer.adamw.as_mut().expect("the recipe has it");
    adamw.lr *= factor;
    adamw.lr_gains *= factor;
}

fn shape(recipe: &mut Recipe, shape: &str) {
    recipe.model = Config { context: SEQ_LEN, ..shape.parse().expect("a valid shape") };
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [out, seconds, n_seeds, rest @ ..] = &args[..] else {
        return Err("usage: ablate OUT.csv SECONDS SEEDS FOLDER… [--only GROUP]…".into());
    };
    let (mut folders, mut only) = (Vec::new(), Vec::new());
    let mut rest = rest.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--only" => only.push(rest.next().ok_or("--only is followed by a group")?.as_str()),
            folder => folders.push(folder),
        }
    }
    let (seconds, n_seeds): (f64, u64) = (seconds.parse()?, n_seeds.parse()?);
    let out = Path::new(out);
    let mut bench = Bench::new(&folders)?;
    let known = std::fs::read_to_string(out).unwrap_or_default();
    // Steps of all runs in a file are counted by the same one of the recipe.
    let of_recipe = known.lines().find_map(|line| line.strip_prefix("recipe,base,1,")?.split(',').next());
    let of_recipe: Option<f64> = of_recipe.and_then(|ms| ms.parse().ok());
    if let Some(ms) = of_recipe {
        bench.seconds.insert(RECIPE.to_owned(), ms / 1e3);
    }
    let mut file = OpenOptions::new().create(true).append(true).open(out)?;
    if known.is_empty() {
        writeln!(file, "group,name,seed,ms_per_step,steps,tokens,bits_per_byte,hole_bits_per_byte")?;
    }
    let is_asked = |group: &str| only.is_empty() || only.contains(&group);
    for seed in 1..=n_seeds {
        for (group, name, change) in VARIANTS.iter().filter(|(group, ..)| is_asked(group)) {
            let key = format!("{group},{name},{seed},");
            if known.lines().any(|line| line.starts_with(&key)) {
                continue;
            }
            let mut recipe = base()?;
            change(&mut recipe);
            let step_s = bench.step_seconds(&format!("{group} {name}"), &recipe)?;
            recipe.schedule.steps = (seconds / step_s) as usize;
            let (tokens, bits, hole_bits) = bench.run(&recipe, seed)?;
            let (ms, steps) = (step_s * 1e3, recipe.schedule.steps);
            writeln!(file, "{key}{ms:.1},{steps},{tokens},{bits:.4},{hole_bits:.4}")?;
            file.flush()?;
        }
    }
    Ok(())
}

fn base() -> Result<Recipe, Box<dyn Error>> {
    let mut recipe = Recipe::load("base")?;
    shape(&mut recipe, SHAPE);
    (recipe.data.seq_len, recipe.data.sequences, recipe.data.micro_sequences) = (SEQ_LEN, 8, 4);
    recipe.schedule.warmup_steps = 10;
    Ok(recipe)
}

struct Bench {
    corpus: Corpus,
    packages: Arc<Packages>,
    tokenizers: HashMap<usize, Arc<Tokenizer>>,
    seconds: BTreeMap<String, f64>,
    pool: Pool,
}

/// A model in training.
struct Trial {
    recipe: Recipe,
    documents: Documents,
    params: Params,
    moments: Moments,
    averages: Vec<Vec<f32>>,
    backend: Backend,
    step: usize,
}

impl Bench {
    fn new(folders: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut files = Vec::new();
        for folder in folders {
            let root = Path::new(folder).canonicalize()?;
            let name = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let (of_folder, _) = Sources::folder(&root).collect(&[Role::Member]);
            files
                .extend(of_folder.into_iter().map(|file| SourceFile { name: format!("{name}/{}", file.name), ..file }));
        }
        let (corpus, pool) = (Corpus::split(files, 0.04, 1)?, Pool::new(1)?);
        let names = corpus.train.iter().map(|file| Some(&*file.name));
        let packages = Arc::new(Packages::of(names, |idx| corpus.train[idx].text.clone(), &pool));
        Ok(Self { corpus, packages, tokenizers: HashMap::new(), seconds: BTreeMap::new(), pool })
    }

    fn tokenizer(&mut self, vocab_size: usize) -> Result<Arc<Tokenizer>, Box<dyn Error>> {
        if let Some(known) = self.tokenizers.get(&vocab_size) {
            return Ok(known.clone());
        }
        let every = self.corpus.train_bytes().div_ceil(MAX_TOKENIZER_BYTES);
        let texts = self.corpus.train.iter().step_by(every).map(|file| file.text.as_str());
        let learned = Arc::new(tokenizer::learn(texts, vocab_size)?);
        self.tokenizers.insert(vocab_size, learned.clone());
        Ok(learned)
    }

    fn trial(&mut self, recipe: &Recipe, seed: u64) -> Result<Trial, Box<dyn Error>> {
        let tokenizer = self.tokenizer(recipe.model.vocab_size)?;
        let config = Config { vocab_size: tokenizer.vocab_size(), ..recipe.model.clone() };
        let mut params = Params::init(&config, seed);
        params.weights = recipe.weights;
        Ok(Trial {
            documents: Documents::new(tokenizer, &self.corpus.train, self.packages.clone(), &recipe.data, seed),
            moments: recipe.optimizer.moments(&params),
            averages: params.list.iter().map(|param| param.values.clone()).collect(),
            backend: Backend::fused(&params, recipe.data.sequences / recipe.data.micro_sequences),
            params,
            recipe: recipe.clone(),
            step: 0,
        })
    }

    /// The time of a step, in the unit in which a step of [`base`] always takes the same.
    fn step_seconds(&mut self, name: &str, recipe: &Recipe) -> Result<f64, Box<dyn Error>> {
        if let Some(known) = self.seconds.get(name) {
            return Ok(*known);
        }
        let mut trials = [self.trial(&base()?, 1)?, self.trial(recipe, 1)?];
        let (mut of_recipe, mut quotients) = (Vec::new(), Vec::new());
        for pair in 0..=TIMED_PAIRS {
            let mut times = [0.0; 2];
            for (trial, time) in trials.iter_mut().zip(&mut times) {
                let start = Instant::now();
                trial.step(0.1, &self.pool)?;
                *time = start.elapsed().as_secs_f64();
            }
            if pair > 0 {
                of_recipe.push(times[0]);
                quotients.push(times[1] / times[0]);
            }
        }
        let first = *self.seconds.entry(RECIPE.to_owned()).or_insert(median(of_recipe));
        let seconds = if name == RECIPE { first } else { first * median(quotients) };
        self.seconds.insert(name.to_owned(), seconds);
        Ok(seconds)
    }

    /// Tokens seen, and what is held out in bits per byte: read on, and the lines of holes.
    fn run(&mut self, recipe: &Recipe, seed: u64) -> Result<(usize, f64, f64), Box<dyn Error>> {
        let mut trial = self.trial(recipe, seed)?;
        for step in 0..recipe.schedule.steps {
            trial.step(recipe.schedule.factor(step), &self.pool)?;
        }
        if recipe.optimizer.ema > 0.0 {
            let averages = std::mem::take(&mut trial.averages);
            trial.params.list.iter_mut().zip(averages).for_each(|(param, average)| param.values = average);
        }
        let tokenizer = self.tokenizer(recipe.model.vocab_size)?;
        let graph = Graph::new(&trial.params, recipe.precision.resolve());
        let watch = ValidationSet::new(&tokenizer, &self.corpus.held_out, SEQ_LEN, 200);
        let bits = watch.bits_per_byte(&graph, &self.pool)?;
        let holes = ValidationSet::of(&tokenizer, holes(&tokenizer, &self.corpus.held_out));
        let n_tokens = recipe.schedule.steps * recipe.data.sequences * recipe.data.seq_len;
        Ok((n_tokens, bits, holes.bits_per_byte(&graph, &self.pool)?))
    }
}

impl Trial {
    fn step(&mut self, factor: f64, pool: &Pool) -> Result<(), Box<dyn Error>> {
        let Recipe { data, optimizer, entropy, .. } = &self.recipe;
        let (micro, matmul) = (data.micro_sequences, self.recipe.precision.resolve());
        self.backend.entropy = *entropy;
        let parts = 0..data.sequences / micro;
        let batches: Vec<Batch> =
            parts.map(|part| self.documents.batch(self.step, part * micro..(part + 1) * micro)).collect();
        let weight: f32 = batches.iter().map(Batch::weight).sum();
        self.backend.gradients(&self.params, matmul, &batches, 1.0 / weight, pool)?;
        let update = Update { factor, precision: matmul.precision, step: self.step + 1 };
        optimizer.step(&mut self.params, &mut self.moments, self.backend.sum(pool), update, pool);
        if optimizer.ema > 0.0 {
            for (average, param) in self.averages.iter_mut().zip(&self.params.list) {
                nanochat_train::optim::moments::average(average, &param.values, optimizer.ema, self.step);
            }
        }
        self.step += 1;
        Ok(())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A line of each held-out file with the text around it; only the line's own tokens are targets.
fn holes(tokenizer: &Tokenizer, files: &[SourceFile]) -> Vec<Batch> {
    const BEFORE: usize = 500;
    const AFTER: usize = 200;
    const PER_FILE: usize = 4;
    let mut rng = Rng::new(1);
    let mut batches = Vec::new();
    for file in files {
        let text = file.text.as_bytes();
        let ends: Vec<usize> = (0..text.len()).filter(|i| text[*i] == b'\n').collect();
        for _ in 0..PER_FILE.min(ends.len().saturating_sub(1)) {
            let idx = rng.below(ends.len() - 1);
            let (start, end) = (ends[idx] + 1, ends[idx + 1]);
            let window = start.saturating_sub(BEFORE)..(end + AFTER).min(text.len());
            if end < start + 8 {
                continue;
            }
            let tokens = document(tokenizer, &[], &text[window.clone()], end - window.start);
            let before = document(tokenizer, &[], &text[window.start..start], start - window.start);
            let after = tokenizer.encode(&text[end..window.end]).len();
            let mut batch = Batch::single(&tokens);
            // The document of the text before has as many tokens in front, and its end mark takes the place of one.
            let first = before.len() + after - 1;
            let targets = Arc::make_mut(&mut batch.targets);
            for (i, target) in targets.iter_mut().enumerate().take(tokens.len() - 2).skip(first - 1) {
                *target = u32::from(tokens[i + 1]);
            }
            batches.push(batch);
        }
    }
    batches
}
