//! One seed of a fleet: sidecars that share one limit through a store that fails, each with a load of its own.
//!
//! Calls ask the pacer alone; leases, the script and the lines are the real ones.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sigward_gateway::pace::{Asked, Limit, Patience};
use tokio::time::Instant;

use super::faults::Sabotage;
use super::random::Random;
use super::run::{Outcome, Sidecar, in_world};
use super::{STORE, World, locked};
use crate::{fleet, shared, shared::Shared};

/// Loads come and go, and the store fails.
const STORMY: Duration = Duration::from_secs(8);
/// Then the store is well, and everybody wants more than there is.
const FINE: Duration = Duration::from_secs(5);
/// Of that, until all is as it should be.
const SETTLING: Duration = Duration::from_secs(3);

/// Who called, and when.
type Calls = Arc<Mutex<Vec<(Duration, usize)>>>;

/// Runs one seed on this thread.
pub(super) fn run(seed: u64, traced: bool, sabotage: Option<Sabotage>) -> Outcome {
    in_world(seed, traced, sabotage, |world| async move { all(world).await })
}

async fn all(world: Arc<World>) {
    let mut random = world.split();
    let count = random.size(2, 5);
    let rate = random.between(10, 60) as f64;
    let stormy = random.chance(60);
    let share = 1.0 / count as f64;
    let settings = format!(r#"{{"pace": {{"shared": "redis://{STORE}", "share": {share}}}}}"#);
    world.tell(|| format!("{count} sidecars share {rate} calls a second; {:?}", world.plan.latency));
    let mut tasks = tokio::task::JoinSet::new();
    let calls = Calls::default();
    for number in 0..count {
        let sidecar = Sidecar::new(&settings);
        tasks.spawn(shared::pace(Arc::clone(&sidecar.shared)));
        tasks.spawn(fleet::keep(Arc::clone(&sidecar.shared)));
        tasks.spawn(load(Arc::clone(&world), sidecar, number, rate, share, Arc::clone(&calls), random.split()));
    }
    if stormy {
        let _ = tokio::time::timeout(STORMY, super::store::weather(Arc::clone(&world))).await;
        world.store.set_down(false);
        world.store.set_delay(0);
        if random.chance(30) {
            let nonsense = random.pick(&["50 50 9999999999999", "inf inf inf", "nan nan nan", "x", "", "9999999999999"]);
            world.tell(|| format!("somebody wrote {nonsense:?}"));
            world.store.spoil(nonsense);
        }
        world.tell(|| "the store is well".into());
    } else {
        tokio::time::sleep(STORMY).await;
    }
    tokio::time::sleep(FINE).await;
    tasks.shutdown().await;
    let calls = std::mem::take(&mut *locked(&calls));
    // Each sidecar has a call at once, and another when its part grows.
    let slack = 2.0 * count as f64;
    // While some are cut off from the store, they take their shares beside what the others have leased (docs/retries.md).
    let loose = if stormy { STORMY + SETTLING } else { Duration::ZERO };
    for seconds in [1, 3] {
        let span = Duration::from_secs(seconds);
        let mut first = 0;
        for (last, (at, _)) in calls.iter().enumerate() {
            while calls[first].0 + span <= *at {
                first += 1;
            }
            let most = rate * seconds as f64 * if *at < loose + span { 2.0 - share } else { 1.02 } + slack;
            let together = (last - first + 1) as f64;
            if together > most {
                world.violation(|| format!("{together} calls in the {seconds} s before {at:?}, {rate} a second are allowed"));
                break;
            }
        }
    }
    let fine: Vec<usize> = calls.iter().filter(|(at, _)| *at >= STORMY + SETTLING).map(|(_, number)| *number).collect();
    let span = FINE.saturating_sub(SETTLING).as_secs_f64();
    let all = fine.len() as f64;
    world.check(all >= 0.9 * rate * span - count as f64, || {
        format!("{all} calls in {span} s, {rate} a second are allowed, and the store is well")
    });
    for number in 0..count {
        let own = fine.iter().filter(|one| **one == number).count() as f64;
        let most = rate * share * span;
        world.check(own >= 0.7 * most - 1.0, || format!("sidecar {number} has {own} calls in {span} s, its part are {most}"));
    }
}

async fn load(world: Arc<World>, sidecar: Arc<Sidecar>, number: usize, rate: f64, share: f64, calls: Calls, mut random: Random) {
    let shared = &sidecar.shared;
    let name: Arc<str> = "sigward:pace:one".into();
    let pacer = Arc::clone(&shared.config.load().live.pacer);
    let key = pacer.key("one");
    let limit = Limit { rate, burst: rate };
    let patience = Patience { wait: Duration::from_secs(2), places: 40 };
    let (mut wanted, mut until) = (0.0, Instant::now());
    let mut waiting = tokio::task::JoinSet::new();
    loop {
        if Instant::now() >= until {
            let fine = world.began.elapsed() >= STORMY.saturating_sub(Duration::from_secs(1));
            wanted = if fine { 2.0 * rate } else { rate * random.pick(&[0.0, 0.0, 0.1, 0.5, 1.0, 3.0]) };
            until = Instant::now() + random.millis(300, 3000);
            world.tell(|| format!("sidecar {number} wants {wanted}"));
        }
        if wanted <= 0.0 {
            tokio::time::sleep_until(until).await;
            continue;
        }
        tokio::time::sleep(Duration::from_secs_f64(1.0 / wanted)).await;
        match pacer.ask_shared(key, limit, Some((&name, share)), random.below(3), shared.started.elapsed(), patience) {
            Asked::Go => called(&world, &calls, number),
            Asked::Full(_) => {}
            Asked::Wait(ticket) => {
                waiting.spawn(waited(Arc::clone(&world), Arc::clone(shared), ticket, Arc::clone(&calls), number));
            }
        }
        while waiting.try_join_next().is_some() {}
    }
}

/// As the driver waits.
async fn waited(world: Arc<World>, shared: Arc<Shared>, ticket: sigward_gateway::pace::Ticket, calls: Calls, number: usize) {
    shared.queued.notify_one();
    if ticket.is_unleased() {
        shared.unleased.notify_one();
    }
    if tokio::time::timeout(Duration::from_secs(4), ticket).await.is_ok() {
        called(&world, &calls, number);
    }
}

fn called(world: &World, calls: &Calls, number: usize) {
    world.tell(|| format!("sidecar {number} calls"));
    locked(calls).push((world.began.elapsed(), number));
}
