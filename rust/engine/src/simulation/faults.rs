//! What may go wrong, and how much of it does in one run.

use std::sync::atomic::AtomicU64;

use super::random::Random;

macro_rules! faults {
    ($($name:ident: $most:literal $words:literal,)*) => {
        /// Most of them happen in half of all runs, so that each kind is also seen alone.
        #[derive(Clone, Copy, Debug)]
        pub(super) enum Fault { $(#[doc = $words] $name,)* }

        /// Each with its largest part of a hundred.
        pub(super) const FAULTS: &[(Fault, u64)] = &[$((Fault::$name, $most),)*];
    };
}

faults! {
    LookupFails: 10 "A name is not found.",
    LookupHangs: 5 "Nobody answers who knows names.",
    LookupLies: 5 "A name leads to this host.",
    DialRefused: 20 "Nobody listens.",
    DialHangs: 20 "A connection never comes about.",
    HandshakeCut: 10 "It ends within the handshake.",
    HandshakeHangs: 5 "The handshake does not go on.",
    Untrusted: 5 "The upstream's certificate is not trusted.",
    ResetOnHead: 10 "The upstream ends the connection when it has read the head.",
    SilentOnHead: 5 "The upstream reads no further than the head.",
    Early: 20 "The upstream answers before it has the body.",
    Informational: 30 "Informational answers come first.",
    ResetAfterBody: 10 "The connection is reset, and nobody knows whether the call was executed.",
    ClosedAfterBody: 10 "The same, closed as if all were well.",
    SilentAfterBody: 5 "No answer comes.",
    Garbage: 5 "The answer is not HTTP.",
    CutHead: 5 "The answer's head is cut off.",
    CutBody: 10 "The answer's body is cut off.",
    StalledBody: 5 "The answer's body does not go on.",
    Dirty: 20 "Bytes come behind the answer.",
    SaysClose: 30 "The upstream says that it closes the connection.",
    ClosesQuietly: 30 "It does so without a word, a little later.",
    Slow: 30 "The answer takes its time.",
    Trickle: 10 "The answer comes in small pieces, with pauses.",
    Throttled: 40 "Too many calls, says the upstream: nothing was executed.",
    Transient: 30 "500 to 504: nobody knows whether the call was executed.",
    Declined: 10 "The upstream refuses the call for good.",
    StreamRefused: 20 "HTTP/2: `REFUSED_STREAM`, nothing was executed.",
    StreamReset: 10 "HTTP/2: another reset.",
    GoAway: 20 "HTTP/2: the connection ends in good order.",
    ClientGone: 20 "The client goes away, at any step.",
    ClientStalls: 10 "The client stops sending its body for a while.",
    ClientBreaks: 10 "The client's body breaks off.",
    ClientSlow: 20 "The client takes its answer slowly.",
    KeysFail: 30 "Credentials cannot be refreshed.",
    KeysSlow: 30 "They can, and it takes long.",
    KeysExpire: 60 "They live for seconds.",
    ClockJumps: 50 "This host's clock is set.",
    Reload: 50 "Settings are replaced in the middle.",
    StoreFails: 30 "The store is away for a while.",
    StoreForgets: 30 "Another store takes over, which knows nothing.",
    StoreSlow: 20 "The store answers late.",
}

/// How often each happened, in all runs of this process.
pub(super) static HAPPENED: [AtomicU64; FAULTS.len()] = [const { AtomicU64::new(0) }; FAULTS.len()];

/// Rules that tests break on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// A connection goes back to the pool whatever is left on it.
    KeepsDirty,
    /// A connection in the pool is not looked at before it is used.
    TrustsIdle,
    /// A connection that broke counts as one that never was.
    RepeatsAll,
    /// What a body held in memory is not given back.
    LosesMemory,
    /// Time-outs do not ring.
    NeverRings,
    /// Whatever the store leases, the whole limit is used.
    TakesWhole,
}

/// What one seed makes of the world.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) faults: [u64; FAULTS.len()],
    /// Milliseconds.
    pub(super) latency: (u64, u64),
    /// Bytes on their way.
    pub(super) windows: [usize; 2],
    /// Of a hundred reads and writes, those that move a part.
    pub(super) partial: u64,
    /// Upstreams that can, speak HTTP/2.
    pub(super) speaks_http2: bool,
    /// Calls are repeated whatever they are.
    pub(super) repeats_all: bool,
    pub(super) requests: u64,
    pub(super) sidecars: usize,
}

impl Plan {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut faults = [0; FAULTS.len()];
        // Some runs are calm, in some all goes wrong.
        let some = random.pick(&[0, 20, 50, 50, 50, 80]);
        for (fault, most) in FAULTS {
            if random.chance(some) {
                faults[*fault as usize] = random.between(1, *most);
            }
        }
        let windows = [256, 4 << 10, 64 << 10, 1 << 20];
        Self {
            faults,
            latency: random.pick(&[(0, 0), (0, 5), (1, 50), (0, 300)]),
            windows: [random.pick(&windows), random.pick(&windows)],
            partial: random.pick(&[0, 10, 50, 90]),
            speaks_http2: random.chance(70),
            repeats_all: random.chance(5),
            requests: random.between(5, 30),
            sidecars: random.size(1, 2),
        }
    }
}
