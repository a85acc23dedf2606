//! The autotuner's table as a file, and the plans that it gives for a model.
//!
//! ```text
//! Config → Workload ─ measure → Tuned ─ remember → tune.toml ─ plans → Model::with_plans
//! ```
//!
//! A table that is missing, damaged, or of another machine or version costs speed and nothing else: the defaults take
//! its place. It is measured again when it is older than [`MAX_AGE`], or when a token takes [`DRIFT`] times as long as
//! it did then, or that much less.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nanochat_kernels::autotune::{self, Product, Table, Unfit, slowdown};
pub use nanochat_kernels::autotune::{Effort, Machine, Measured, Plans, Tuned, Workload};

use crate::workspace::store::write_durably;
use crate::{Cancel, Cancelled, Config};

/// How long measuring takes, in addition to some 100 ms of packing matrices.
pub const TIME: Duration = Duration::from_millis(1400);
/// The age at which a table is measured again: kernels, governors and the load of the machine change.
pub const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// A change of speed that is not noise: other clocks (a laptop on battery), or another share of the machine.
pub const DRIFT: f64 = 1.5;
/// Longer files are refused: 16 models take 20 kB.
const MAX_FILE: u64 = 1 << 20;

/// Why a table is not used, or was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuneError {
    /// The file system refused.
    #[error("{}: {source}; plans are the defaults", path.display())]
    Io {
        /// The file of the table.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The file is not a table.
    #[error("{} is not a table of the autotuner ({reason}); plans are the defaults until `cargo nanochat tune`", path.display())]
    Malformed {
        /// The file of the table.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The table is for another machine, version or model.
    #[error("{} is not used: {source}; plans are the defaults until `cargo nanochat tune`", path.display())]
    Unfit {
        /// The file of the table.
        path: PathBuf,
        /// Why it is not used.
        source: Unfit,
    },
}

/// The products of a model. `n_threads` 0: one per core.
pub fn workload(config: &Config, n_threads: usize) -> Workload {
    let Config { d_model: d, d_ff, n_layers: n, scales, .. } = *config;
    let kv = 2 * config.kv_dim();
    // Q, K and V are stacked except in the last layer, and so are gate and up; the others are separate.
    let all = [(d + kv, d, n - 1), (d, d, n + 1), (kv, d, 1), (2 * d_ff, d, n), (d, d_ff, n)];
    let mut products: Vec<Product> = Vec::new();
    for (rows, cols, n) in all.into_iter().filter(|(_, _, n)| *n > 0) {
        match products.iter_mut().find(|product| (product.rows, product.cols) == (rows, cols)) {
            Some(product) => product.n += n,
            None => products.push(Product { rows, cols, scales, n }),
        }
    }
    let n_cores = || std::thread::available_parallelism().map_or(1, usize::from);
    Workload { products, n_threads: if n_threads == 0 { n_cores() } else { n_threads } }
}

/// The plans for a model, and why they are the defaults where a table exists but is not used.
pub fn plans(path: &Path, config: &Config, n_threads: usize) -> (Plans, Option<TuneError>) {
    match find(path, &workload(config, n_threads)) {
        Ok(Some(tuned)) => (tuned.plans(), None),
        Ok(None) | Err(TuneError::Unfit { source: Unfit::Unknown { .. }, .. }) => (Plans::default(), None),
        Err(error) => (Plans::default(), Some(error)),
    }
}

/// What was measured for a workload on this machine; `None` without a file.
pub fn find(path: &Path, workload: &Workload) -> Result<Option<Tuned>, TuneError> {
    let Some(table) = read(path)? else { return Ok(None) };
    match table.find(&Machine::this(), workload) {
        Ok(tuned) => Ok(Some(tuned.clone())),
        Err(source) => Err(TuneError::Unfit { path: path.to_owned(), source }),
    }
}

/// Measures a workload, in about `effort.time`; see [`nanochat_kernels::autotune::measure`].
pub fn measure(
    workload: &Workload,
    effort: Effort,
    progress: &mut dyn FnMut(f64),
    cancel: &Cancel,
) -> Result<Measured, Cancelled> {
    autotune::measure(workload, effort, progress, &|| cancel.is_cancelled()).ok_or(Cancelled)
}

/// Whether a workload should be measured (again) at `now` (seconds since 1970): nothing usable is known of it, what is
/// known is too old, of the future or of a busy time, or the machine's speed has changed. The last is measured, which
/// takes some 100 ms.
pub fn is_due(path: &Path, workload: &Workload, now: u64, cancel: &Cancel) -> Result<bool, Cancelled> {
    let Ok(Some(tuned)) = find(path, workload) else { return Ok(true) };
    let is_fresh = now.checked_sub(tuned.measured_at).is_some_and(|age| age < MAX_AGE.as_secs());
    if !is_fresh || tuned.was_busy {
        return Ok(true);
    }
    let slowdown = slowdown(workload, &tuned, &|| cancel.is_cancelled()).ok_or(Cancelled)?;
    Ok(!(1.0 / DRIFT..=DRIFT).contains(&slowdown))
}

/// Adds a measurement to the file, whole or not at all. A table of another machine or version, or one that cannot be
/// read, is replaced.
pub fn remember(path: &Path, tuned: Tuned) -> Result<(), TuneError> {
    let here = Machine::this();
    let known = read(path).ok().flatten().filter(|table| table.machine == here);
    let mut table = known.unwrap_or_else(|| Table::new(here));
    table.put(tuned);
    let malformed = |error: toml::ser::Error| TuneError::Malformed { path: path.to_owned(), reason: error.to_string() };
    let text = toml::to_string(&table).map_err(malformed)?;
    let text = format!("# Measured by nanochat. Deleting this file only costs a new measurement.\n{text}");
    write_durably(path, |out| out.write_all(text.as_bytes()))
        .map_err(|source| TuneError::Io { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Option<Table>, TuneError> {
    let malformed = |reason: String| TuneError::Malformed { path: path.to_owned(), reason };
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TuneError::Io { path: path.to_owned(), source }),
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(malformed("it is longer than any table".to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| malformed(error.to_string()))?;
    toml::from_str(text).map(Some).map_err(|error| malformed(error.message().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nanochat_kernels::autotune::TunedProduct;
    use nanochat_kernels::{Isa, Plan};

    use super::*;
    use crate::model::weights::random;
    use crate::{Model, Session};

    const SHAPE: &str = "d64 l2 h4 kv2 ff128 v300 n1 ctx256";

    fn config() -> Config {
        SHAPE.parse().expect("a shape")
    }

    /// A table that picks what nobody would: the scalar routine, in pieces of 3.
    fn wrong_pick(n_threads: usize) -> Tuned {
        let picked = |product: &Product| TunedProduct {
            product: *product,
            isa: "scalar".to_owned(),
            superblocks_per_piece: 3,
            gops_one: 1.5,
            gops_many: 2.5,
        };
        let products = workload(&config(), n_threads).products.iter().map(picked).collect();
        Tuned { n_threads, measured_at: 1000, prompt_batch: 17, was_busy: false, token_us: 10.0, products }
    }

    fn planted(change: impl FnOnce(String) -> Vec<u8>) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("cache/tune.toml");
        remember(&path, wrong_pick(2)).expect("it can be written");
        let text = fs::read_to_string(&path).expect("it was written");
        fs::write(&path, change(text)).expect("it can be written");
        (folder, path)
    }

    #[test]
    fn a_wrong_pick_that_is_planted_is_what_the_model_runs() {
        let (_folder, path) = planted(String::into_bytes);
        let (plans, complaint) = plans(&path, &config(), 2);
        assert!(complaint.is_none(), "{complaint:?}");
        let weights = random(&config(), 3);
        let (tuned, default) = (Model::with_plans(&weights, 2, &plans), Model::new(&weights, 2));
        assert_eq!(tuned.plans().len(), 9, "four products in each of two layers, and one more in the last");
        for (shape, plan) in tuned.plans() {
            assert_eq!((plan.isa, plan.superblocks_per_piece), (Isa::SCALAR, 3), "{shape:?}");
        }
        assert_eq!((tuned.isa(), tuned.prompt_batch()), (Isa::SCALAR, 17));
        assert!(default.plans().iter().all(|(_, plan)| *plan == Plan::default()));
        // And it changes no bit of what comes out.
        let tokens: Vec<_> = (0..60).collect();
        assert_eq!(Session::new(tuned).logits_of(&tokens), Session::new(default).logits_of(&tokens));
    }

    #[test]
    fn each_model_has_the_products_that_are_planned_for_it() {
        for shape in [SHAPE, "d96 l3 h4 kv1 ff224 v300 n2 ctx64"] {
            let config: Config = shape.parse().expect("a shape");
            let products = workload(&config, 1).products;
            let model = Model::new(&random(&config, 1), 1);
            let mut found: Vec<_> = model.plans().iter().map(|(shape, _)| (shape.rows, shape.cols)).collect();
            let each = |product: &Product| vec![(product.rows, product.cols); product.n];
            let mut planned: Vec<_> = products.iter().flat_map(each).collect();
            found.sort_unstable();
            planned.sort_unstable();
            assert_eq!(found, planned, "{shape}");
        }
    }

    #[test]
    fn no_file_and_another_model_are_no_reason_to_complain() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(matches!(plans(&folder.path().join("none"), &config(), 2), (_, None)));
        let (_folder, path) = planted(String::into_bytes);
        let (found, complaint) = plans(&path, &config(), 1);
        assert_eq!(found, Plans::default());
        assert!(complaint.is_none());
    }

    #[test]
    fn a_stale_or_foreign_table_falls_back_with_a_message() {
        let version = env!("CARGO_PKG_VERSION");
        let changes: [(&str, String, &str); 3] = [
            ("version", format!("version = \"{version}\""), "version = \"0.0.0\""),
            ("cpu", "cpu = \"".to_owned(), "cpu = \"another "),
            ("n_cores", "n_cores = ".to_owned(), "n_cores = 9"),
        ];
        for (what, from, to) in changes {
            let (_folder, path) = planted(|text| {
                assert!(text.contains(&from), "{text}");
                text.replacen(&from, to, 1).into_bytes()
            });
            let (found, complaint) = plans(&path, &config(), 2);
            assert_eq!(found, Plans::default(), "{what}");
            let complaint = complaint.expect(what).to_string();
            assert!(complaint.contains("cargo nanochat tune") && !complaint.contains('\n'), "{complaint}");
            assert_eq!(is_due(&path, &workload(&config(), 2), 1001, &Cancel::new()), Ok(true));
        }
    }

    #[test]
    fn a_corrupt_table_is_survived_and_written_over() {
        let replace = |from: &'static str, to: &'static str| {
            move |text: String| {
                assert!(text.contains(from), "{text}");
                text.replacen(from, to, 1).into_bytes()
            }
        };
        let changes: Vec<Box<dyn Fn(String) -> Vec<u8>>> = vec![
            Box::new(|_| Vec::new()),
            Box::new(|_| vec![0xFF; 4096]),
            Box::new(|text| text.into_bytes().into_iter().map(|byte| byte.wrapping_mul(167)).collect()),
            Box::new(|_| b"x = 1\n".repeat(1 << 18)),
            Box::new(replace("token_us = 10.0", "token_us = nan")),
            Box::new(replace("token_us = 10.0", "token_us = inf")),
            Box::new(replace("superblocks_per_piece = 3", "superblocks_per_piece = 9223372036854775807")),
            Box::new(replace("superblocks_per_piece = 3", "superblocks_per_piece = -3")),
            Box::new(replace("superblocks_per_piece = 3", "superblocks_per_piece = 99999999999999999999999")),
            Box::new(replace("prompt_batch = 17", "prompt_batch = 0")),
            Box::new(replace("prompt_batch = 17", "surprise = true\nprompt_batch = 17")),
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let (_folder, path) = planted(change);
            let (found, complaint) = plans(&path, &config(), 2);
            assert_eq!(found, Plans::default(), "{i}");
            assert!(complaint.is_some(), "{i}");
            remember(&path, wrong_pick(2)).expect("it can be written");
            assert_ne!(plans(&path, &config(), 2).0, Plans::default(), "{i}");
        }
        // Cut off anywhere, it is either refused or a table with fewer models.
        let (_folder, path) = planted(String::into_bytes);
        let text = fs::read(&path).expect("it was written");
        for len in 0..text.len() {
            fs::write(&path, &text[..len]).expect("it can be written");
            let (found, complaint) = plans(&path, &config(), 2);
            assert!(found == Plans::default() || complaint.is_none(), "{len} bytes");
        }
    }

    #[test]
    fn an_unknown_routine_gives_way_and_the_rest_holds() {
        let (_folder, path) = planted(|text| text.replacen("\"scalar\"", "\"avx9000\"", 1).into_bytes());
        let (plans, complaint) = plans(&path, &config(), 2);
        assert!(complaint.is_none());
        let model = Model::with_plans(&random(&config(), 3), 2, &plans);
        let isas: Vec<_> = model.plans().iter().take(4).map(|(_, plan)| plan.isa).collect();
        assert_eq!(isas, [Isa::best(), Isa::SCALAR, Isa::SCALAR, Isa::SCALAR]);
    }

    #[test]
    fn what_is_old_or_of_the_future_or_unknown_is_due() {
        let (_folder, path) = planted(String::into_bytes);
        let due = |now: u64, n_threads| is_due(&path, &workload(&config(), n_threads), now, &Cancel::new());
        assert_eq!(due(1000 + MAX_AGE.as_secs(), 2), Ok(true));
        assert_eq!(due(999, 2), Ok(true));
        assert_eq!(due(1001, 1), Ok(true), "nothing is known for one thread");
        remember(&path, Tuned { was_busy: true, ..wrong_pick(2) }).expect("it can be written");
        assert_eq!(due(1001, 2), Ok(true), "measured at a bad time");
        remember(&path, wrong_pick(2)).expect("it can be written");
        // A fresh one is tried out, and that can be stopped.
        let cancel = Cancel::new();
        cancel.cancel();
        assert_eq!(is_due(&path, &workload(&config(), 2), 1001, &cancel), Err(Cancelled));
    }
}
