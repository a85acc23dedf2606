use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

fn workload(n_threads: usize) -> Workload {
    let product = |rows, cols, scales| Product { rows, cols, scales, n: 2 };
    let products = vec![product(192, 64, ScaleGroup::Matrix), product(64, 96, ScaleGroup::Columns(32))];
    Workload { products, n_threads }
}

fn tuned(n_threads: usize, measured_at: u64) -> Tuned {
    let picked = |product: &Product| TunedProduct {
        product: *product,
        isa: "scalar".to_owned(),
        superblocks_per_piece: 3,
        gops_one: 1.0,
        gops_many: 2.0,
    };
    let products = workload(1).products.iter().map(picked).collect();
    Tuned { n_threads, measured_at, prompt_batch: 48, was_busy: false, token_us: 10.0, products }
}

fn table() -> Table {
    let mut table = Table::new(Machine::this());
    table.put(tuned(2, 1000));
    table
}

#[test]
fn the_plans_are_those_of_the_table() {
    let table = table();
    let plans = table.find(&Machine::this(), &workload(2)).expect("it was put in above").plans();
    for Product { rows, cols, .. } in workload(2).products {
        let plan = plans.plan(Shape { rows, cols });
        assert_eq!((plan.isa, plan.superblocks_per_piece), (Isa::SCALAR, 3));
    }
    assert_eq!((plans.isa(), plans.prompt_batch()), (Isa::SCALAR, 48));
    assert_eq!(plans.plan(Shape { rows: 1, cols: 1 }).isa, Isa::SCALAR, "what was not measured goes with the rest");
}

#[test]
fn stale_foreign_and_unknown_tables_are_distinguished() {
    let here = Machine::this();
    let find = |machine: Machine, workload: &Workload| table().find(&machine, workload).err();
    assert!(matches!(find(Machine { version: "9.9".into(), ..here.clone() }, &workload(2)), Some(Unfit::Stale { .. })));
    assert!(matches!(find(Machine { cpu: "Z80".into(), ..here.clone() }, &workload(2)), Some(Unfit::Foreign { .. })));
    let more_cores = Machine { n_cores: here.n_cores + 1, ..here.clone() };
    assert!(matches!(find(more_cores, &workload(2)), Some(Unfit::Foreign { .. })));
    assert_eq!(find(here.clone(), &workload(1)), Some(Unfit::Unknown { n_threads: 1 }));
    let other = Workload { products: workload(2).products[..1].to_vec(), n_threads: 2 };
    assert_eq!(find(here, &other), Some(Unfit::Unknown { n_threads: 2 }));
}

#[test]
fn impossible_figures_are_refused() {
    let spoil: [fn(&mut Tuned); 9] = [
        |tuned| tuned.token_us = f64::NAN,
        |tuned| tuned.token_us = -1.0,
        |tuned| tuned.prompt_batch = 0,
        |tuned| tuned.prompt_batch = usize::MAX,
        |tuned| tuned.products[0].superblocks_per_piece = 0,
        |tuned| tuned.products[1].superblocks_per_piece = usize::MAX,
        |tuned| tuned.products[0].gops_one = f64::INFINITY,
        |tuned| tuned.products[0].gops_many = f64::NAN,
        |tuned| tuned.products[1].gops_one = 0.0,
    ];
    for (i, spoil) in spoil.into_iter().enumerate() {
        let mut table = table();
        spoil(&mut table.models[0]);
        assert_eq!(table.find(&Machine::this(), &workload(2)).err(), Some(Unfit::Nonsense), "{i}");
    }
}

#[test]
fn a_routine_that_this_processor_lacks_gives_way_to_the_default() {
    let mut tuned = tuned(2, 0);
    tuned.products[0].isa = "avx9000".to_owned();
    let plans = tuned.plans();
    assert_eq!(plans.plan(Shape { rows: 192, cols: 64 }), Plan::default());
    assert_eq!(plans.plan(Shape { rows: 64, cols: 96 }).isa, Isa::SCALAR);
}

#[test]
fn a_table_keeps_the_latest_of_each_and_not_too_many() {
    let mut table = table();
    table.put(tuned(2, 2000));
    assert_eq!(table.models.iter().map(|tuned| tuned.measured_at).collect::<Vec<_>>(), [2000]);
    (3..40).for_each(|n| table.put(tuned(n, n as u64)));
    assert_eq!(table.models.len(), MAX_MODELS);
    assert!(table.find(&Machine::this(), &workload(39)).is_ok());
    assert!(table.find(&Machine::this(), &workload(2)).is_err(), "the oldest went");
}

#[test]
fn measuring_finds_a_plan_for_each_product_that_the_table_then_gives_back() {
    let workload = workload(2);
    let effort = Effort { time: Duration::from_millis(1), now: 5 };
    let mut parts = Vec::new();
    let measured = measure(&workload, effort, &mut |part| parts.push(part), &|| false);
    let Measured { tuned, candidates } = measured.expect("nobody stopped it");
    assert!(parts.windows(2).all(|pair| pair[0] <= pair[1]) && parts.last() == Some(&1.0), "{parts:?}");
    assert!(candidates.iter().any(|candidate| candidate.plan == Plan::default()));
    assert_eq!(candidates.iter().filter(|candidate| candidate.is_picked).count(), 2);
    let mut table = Table::new(Machine::this());
    table.put(tuned.clone());
    assert_eq!(table.find(&Machine::this(), &workload), Ok(&tuned));
    let plans = tuned.plans();
    for picked in candidates.iter().filter(|candidate| candidate.is_picked) {
        let Product { rows, cols, .. } = picked.product;
        assert_eq!(plans.plan(Shape { rows, cols }), picked.plan);
    }
    let slowdown = slowdown(&workload, &tuned, &|| false).expect("nobody stopped it");
    assert!(slowdown.is_finite() && slowdown > 0.0);
}

#[test]
fn measuring_stops_when_it_is_told_to() {
    let effort = Effort { time: Duration::from_secs(3600), now: 0 };
    assert_eq!(measure(&workload(2), effort, &mut |_| (), &|| true), None);
    let stop = AtomicBool::new(false);
    let n_rounds = AtomicUsize::new(0);
    let mut progress = |_| {
        if n_rounds.fetch_add(1, Ordering::Relaxed) == 3 {
            stop.store(true, Ordering::Relaxed);
        }
    };
    assert_eq!(measure(&workload(2), effort, &mut progress, &|| stop.load(Ordering::Relaxed)), None);
    assert_eq!(slowdown(&workload(2), &tuned(2, 0), &|| true), None);
}
