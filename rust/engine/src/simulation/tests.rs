//! Many seeds, on all cores. A seed that fails prints itself.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::faults::{FAULTS, HAPPENED, Sabotage};
use super::run::Outcome;
use super::{fleet, locked, run};

/// Of a hundred seeds, those of a fleet.
const FLEETS: u64 = 10;

fn run_one(seed: u64, traced: bool, sabotage: Option<Sabotage>) -> Outcome {
    if seed % 100 < FLEETS { fleet::run(seed, traced, sabotage) } else { run::run(seed, traced, sabotage) }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: {value:?} is not a number")))
}

/// Seeds that fail, at most so many, smallest first, each with what did not hold.
fn failures(from: u64, count: u64, most: usize, sabotage: Option<Sabotage>) -> Vec<(u64, String)> {
    let (next, found) = (AtomicU64::new(from), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || locked(&found).len() >= most {
                        return;
                    }
                    if let Some(violation) = run_one(seed, false, sabotage).violations.into_iter().next() {
                        if sabotage.is_none() {
                            eprintln!("seed {seed}: {violation}");
                        }
                        locked(&found).push((seed, violation));
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_default();
    found.sort();
    found
}

fn report(seed: u64) -> String {
    let Outcome { violations, trace } = run_one(seed, true, None);
    format!(
        "seed {seed}:\n{}\n\nwhat happened (seconds):\n{}\n\nseed {seed}: {}\nTo run it alone: SIGWARD_SEED={seed} cargo test -p sigward-engine simulation",
        violations.join("\n"),
        trace.join("\n"),
        violations.join("; ")
    )
}

#[test]
fn every_seed_holds() {
    if let Some(seed) = variable("SIGWARD_SEED") {
        let report = report(seed);
        println!("{report}");
        assert!(run_one(seed, false, None).violations.is_empty(), "seed {seed} fails");
        return;
    }
    let (from, count) = (variable("SIGWARD_FIRST_SEED").unwrap_or(0), variable("SIGWARD_SEEDS").unwrap_or(200));
    let began = Instant::now();
    let failed = failures(from, count, 20, None);
    if let Some((seed, _)) = failed.first() {
        let all: Vec<_> = failed.iter().map(|(seed, violation)| format!("seed {seed}: {violation}")).collect();
        let all = all.join("\n");
        panic!("{}\n\nAll that failed:\n{all}", report(*seed));
    }
    println!("{count} seeds from {from} on hold, {:.1} s", began.elapsed().as_secs_f64());
    for (fault, _) in FAULTS {
        let happened = HAPPENED[*fault as usize].load(Ordering::Relaxed);
        println!("{fault:?}: {happened}");
        assert!(happened > 0 || count < 200, "{fault:?} never happens");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in (0..400).step_by(9) {
        let (one, other) = (run_one(seed, true, None), run_one(seed, true, None));
        assert!(one.trace.len() > 10, "seed {seed}");
        for (one, other) in one.trace.iter().zip(&other.trace) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(one.trace.len(), other.trace.len(), "seed {seed}");
    }
}

#[test]
fn rules_that_are_broken_on_purpose_are_noticed() {
    use Sabotage::{KeepsDirty, LosesMemory, NeverRings, RepeatsAll, TakesWhole, TrustsIdle};
    for sabotage in [KeepsDirty, LosesMemory, NeverRings, RepeatsAll, TakesWhole, TrustsIdle] {
        let found = failures(0, 300, 1, Some(sabotage));
        println!("{sabotage:?}: {found:?}");
        assert!(!found.is_empty(), "nobody notices {sabotage:?}");
    }
}
