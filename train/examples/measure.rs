//! Trains a recipe on a folder of Rust and prints what happens: `measure FOLDER RECIPE SECONDS [THREADS]`.
//! For comparing recipes at equal time; the results are written down in `LOG.md`.

use std::path::PathBuf;

use nanochat_engine::workspace::sources::{Package, Role};
use nanochat_engine::{Cancel, Sources};
use nanochat_train::{Device, Event, Options, train};

// glibc gives large pages back on each free, which is 40 % of a step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, folder, recipe, seconds, rest @ ..] = &args[..] else {
        return Err("usage: measure FOLDER RECIPE SECONDS [THREADS]".into());
    };
    let root = PathBuf::from(folder).canonicalize()?;
    let package = Package {
        name: "measured".into(),
        version: "0.0.0".into(),
        edition: "2024".into(),
        licence: None,
        folder: root.clone(),
        role: Role::Member,
    };
    let state = tempfile::tempdir()?;
    let options = Options {
        sources: Sources { root, packages: vec![package] },
        recipe: recipe.clone(),
        state_dir: state.path().to_owned(),
        restart: true,
        seed: None,
        steps: None,
        time_budget_s: Some(seconds.parse()?),
        threads: rest.first().map_or(Ok(0), |n| n.parse())?,
        base: None,
        dependencies: None,
        find_lr: false,
        forget: Vec::new(),
        remember: Vec::new(),
        device: Device::Cpu,
        packed: None,
    };
    let start = std::time::Instant::now();
    let mut print = |event: Event| match event {
        Event::Step { bits_per_byte: None, step, .. } if !step.is_multiple_of(10) => {}
        event => eprintln!("{:7.2} s  {event:?}", start.elapsed().as_secs_f64()),
    };
    let outcome = train(&options, &mut print, &Cancel::new())?;
    eprintln!("{:7.2} s  before {:?}", start.elapsed().as_secs_f64(), outcome.before);
    eprintln!("           after {:?}", outcome.after);
    eprintln!("           {:?} {:?}", outcome.checkpoint.manifest.config.to_string(), outcome.held_out);
    Ok(())
}
