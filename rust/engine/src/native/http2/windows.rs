//! How much a client may send ahead.
//!
//! Usually a stream's window is small, so that an upload goes as fast as its upstream takes it. A client whose request was answered before
//! its end may go on sending, though, and some then read nothing any more: curl 7.88 sees no later `WINDOW_UPDATE`, and takes a reset for
//! a failure. It is granted what is left of its request before it sees the answer's end.
//!
//! What comes of such a request is dropped at once, so it takes nothing of what bodies may hold. But the library grants it to all streams
//! of a connection alike, by `SETTINGS_INITIAL_WINDOW_SIZE`. So a connection is widened for one request at a time, and all connections
//! together have a budget. Beyond it, a client gets its answer all the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use h2::server::Connection;
use tokio::sync::oneshot;

use super::Busy;
use super::carrier::Carrier;
use crate::native::Native;

/// Bytes that a client may send of one request ahead of what is taken.
pub(super) const STREAM: u32 = 256 << 10;
/// And of all requests of a connection.
pub(super) const CONNECTION: u32 = 1 << 20;
/// What is granted on top for the rest of a request that is answered early, at most.
pub(super) const MOST_REST: u32 = 64 << 20;
/// What is granted on top on all connections together, at most.
const MOST_WIDENED: u64 = 256 << 20;

/// What a stream asks of its connection.
pub(super) enum Ask {
    /// So many bytes more; answered when they are granted.
    Wider(u32, oneshot::Sender<()>),
    /// They are of no use any more.
    Narrower,
}

/// What a connection grants.
#[derive(Default)]
pub(super) struct Windows {
    extra: u32,
    granted: u32,
}

impl Windows {
    pub(super) fn answer(&mut self, ask: Ask, connection: &mut Connection<Carrier, Bytes>) {
        let (extra, done) = match ask {
            Ask::Wider(by, done) => (by, Some(done)),
            Ask::Narrower => (0, None),
        };
        self.extra = extra;
        self.settle(connection);
        done.map(|done| done.send(()));
    }

    /// True if a change waits to be announced.
    pub(super) fn is_unsettled(&self) -> bool {
        self.extra != self.granted
    }

    /// Announces what has changed; not before the client has confirmed the change before.
    pub(super) fn settle(&mut self, connection: &mut Connection<Carrier, Bytes>) {
        if self.is_unsettled() && connection.set_initial_window_size(STREAM + self.extra).is_ok() {
            connection.set_target_window_size(CONNECTION + self.extra);
            self.granted = self.extra;
        }
    }
}

/// What a client is granted on top, for as long as this is there.
pub(super) struct Widened {
    by: u32,
    native: Arc<Native>,
    busy: Arc<Busy>,
}

impl Widened {
    /// Grants what is left of a request, as far as it is known. `None`: another request has that grant, or the budget is spent.
    pub(super) async fn new(native: &Arc<Native>, busy: &Arc<Busy>, left: Option<u64>) -> Option<Self> {
        let by = left.map_or(MOST_REST, |left| u32::try_from(left).unwrap_or(MOST_REST).min(MOST_REST));
        if busy.widened.swap(true, Ordering::AcqRel) {
            return None;
        }
        let before = native.widened.fetch_add(by.into(), Ordering::Relaxed);
        let widened = Self { by, native: Arc::clone(native), busy: Arc::clone(busy) };
        if before + u64::from(by) > MOST_WIDENED {
            return None;
        }
        let (done, granted) = oneshot::channel();
        busy.asks.send(Ask::Wider(by, done)).ok()?;
        granted.await.ok()?;
        Some(widened)
    }
}

impl Drop for Widened {
    fn drop(&mut self) {
        // First: the next request to ask must not be narrowed by this.
        let _ = self.busy.asks.send(Ask::Narrower);
        self.native.widened.fetch_sub(self.by.into(), Ordering::Relaxed);
        self.busy.widened.store(false, Ordering::Release);
    }
}
