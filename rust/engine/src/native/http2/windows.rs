//! How much a client may send ahead.
//!
//! Usually a stream's window is small, so that an upload goes as fast as its upstream takes it. A client whose request was answered before
//! its end may go on sending, though, and some then read nothing any more: curl 7.88 sees no later `WINDOW_UPDATE`, and takes a reset for
//! a failure. It is granted what is left of its request before it sees the answer's end. The library grants that to all streams of a
//! connection alike, by `SETTINGS_INITIAL_WINDOW_SIZE`, so it counts as memory that is held.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::Connection;
use tokio::sync::{mpsc, oneshot};

use super::carrier::Carrier;
use crate::shared::{Held, Shared};

/// Bytes that a client may send of one request ahead of what is taken.
pub(super) const STREAM: u32 = 256 << 10;
/// And of all requests of a connection.
pub(super) const CONNECTION: u32 = 1 << 20;
/// What is granted on top for the rest of requests that are answered early, at most.
pub(super) const MOST_REST: u32 = 64 << 20;

/// What a stream asks of its connection.
pub(super) enum Ask {
    /// So many bytes more; answered when they are granted.
    Wider(u32, oneshot::Sender<()>),
    /// These are of no use any more.
    Narrower(u32),
}

/// What a connection grants.
#[derive(Default)]
pub(super) struct Windows {
    extra: u32,
    granted: u32,
}

impl Windows {
    pub(super) fn answer(&mut self, ask: Ask, connection: &mut Connection<Carrier, Bytes>) {
        let done = match ask {
            Ask::Wider(by, done) => {
                self.extra = self.extra.saturating_add(by);
                Some(done)
            }
            Ask::Narrower(by) => {
                self.extra = self.extra.saturating_sub(by);
                None
            }
        };
        self.settle(connection);
        done.map(|done| done.send(()));
    }

    /// Announces what has changed; not before the client has confirmed the change before.
    pub(super) fn settle(&mut self, connection: &mut Connection<Carrier, Bytes>) {
        let extra = self.extra.min(MOST_REST);
        if extra != self.granted && connection.set_initial_window_size(STREAM + extra).is_ok() {
            connection.set_target_window_size(CONNECTION + extra);
            self.granted = extra;
        }
    }
}

/// What a client is granted on top, for as long as this is there.
pub(super) struct Widened {
    by: u32,
    asks: mpsc::UnboundedSender<Ask>,
    _held: Held,
}

impl Widened {
    /// Grants what is left of a request, as far as it is known and there is room.
    pub(super) async fn new(shared: &Arc<Shared>, asks: &mpsc::UnboundedSender<Ask>, left: Option<u64>) -> Option<Self> {
        let by = left.map_or(MOST_REST, |left| u32::try_from(left).unwrap_or(MOST_REST).min(MOST_REST));
        let most = shared.config.load().settings.limits.held_bytes;
        let widened = Self { by, asks: asks.clone(), _held: Held::reserve(shared, by.into(), most)? };
        let (done, granted) = oneshot::channel();
        asks.send(Ask::Wider(by, done)).ok()?;
        granted.await.ok()?;
        Some(widened)
    }
}

impl Drop for Widened {
    fn drop(&mut self) {
        let _ = self.asks.send(Ask::Narrower(self.by));
    }
}
