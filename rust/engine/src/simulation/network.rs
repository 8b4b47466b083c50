//! Connections that lie in memory: bytes take their time, come in pieces, stop, are cut off or reset.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::World;
use super::random::Random;

/// One end of a connection.
pub(super) struct End {
    link: Arc<Mutex<Link>>,
    side: usize,
    timer: Option<Pin<Box<Sleep>>>,
    world: Arc<World>,
}

struct Link {
    /// Bytes on their way from end 0, and from end 1.
    ways: [Way; 2],
    gone: [bool; 2],
    /// Who waits for the other end to go.
    leaving: [Option<Waker>; 2],
    random: Random,
    /// Milliseconds on the way.
    latency: (u64, u64),
    /// Of a hundred reads and writes, those that move a part alone.
    partial: u64,
}

#[derive(Default)]
struct Way {
    segments: VecDeque<(Instant, Segment)>,
    /// Bytes that were not read.
    queued: usize,
    window: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Nothing more is sent: what was said last.
    ended: bool,
}

enum Segment {
    Data(Bytes),
    End,
    Reset,
}

impl Link {
    fn send(&mut self, side: usize, segment: Segment) {
        let latency = self.random.millis(self.latency.0, self.latency.1);
        let way = &mut self.ways[side];
        let at = (Instant::now() + latency).max(way.segments.back().map_or_else(Instant::now, |(at, _)| *at));
        if let Segment::Data(data) = &segment {
            way.queued += data.len();
        } else {
            way.ended = true;
        }
        way.segments.push_back((at, segment));
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
    }

    fn part(&mut self, size: usize) -> usize {
        if size > 1 && self.random.chance(self.partial) { self.random.size(1, size) } else { size }
    }
}

/// Both ends of a new connection; the first is the dialer's. `latency`: milliseconds.
pub(super) fn connection(world: &Arc<World>, latency: (u64, u64)) -> (End, End) {
    let mut random = world.split();
    let plan = &world.plan;
    let latency = (latency.0, random.between(latency.0, latency.1));
    let window = random.pick(&plan.windows);
    let way = || Way { window, ..Way::default() };
    let partial = plan.partial;
    let link = Link { ways: [way(), way()], gone: [false; 2], leaving: [None, None], random, latency, partial };
    let link = Arc::new(Mutex::new(link));
    world.open.fetch_add(1, Ordering::Relaxed);
    let end = |side| End { link: Arc::clone(&link), side, timer: None, world: Arc::clone(world) };
    (end(0), end(1))
}

impl End {
    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it at once; what was sent may be lost with it.
    pub(super) fn reset(self, loses: bool) {
        let mut link = self.link();
        if loses {
            let way = &mut link.ways[self.side];
            way.segments.clear();
            way.queued = 0;
        }
        link.send(self.side, Segment::Reset);
    }

    /// Ready when the other end is gone.
    pub(super) async fn left(&self) {
        std::future::poll_fn(|context| {
            let mut link = self.link();
            if link.gone[1 - self.side] {
                return Poll::Ready(());
            }
            link.leaving[self.side] = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut link = this.link.lock().unwrap_or_else(PoisonError::into_inner);
            let most = buffer.remaining();
            let from = 1 - this.side;
            let Some((at, _)) = link.ways[from].segments.front() else {
                link.ways[from].reader = Some(context.waker().clone());
                return Poll::Pending;
            };
            let at = *at;
            if at > Instant::now() {
                link.ways[from].reader = Some(context.waker().clone());
                drop(link);
                let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
                if timer.deadline() != at {
                    timer.as_mut().reset(at);
                }
                ready!(timer.as_mut().poll(context));
                continue;
            }
            let part = match &link.ways[from].segments.front() {
                Some((_, Segment::Data(data))) => data.len().min(most),
                Some((_, Segment::Reset)) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                _ => return Poll::Ready(Ok(())),
            };
            let part = link.part(part);
            let way = &mut link.ways[from];
            if let Some((_, Segment::Data(data))) = way.segments.front_mut() {
                buffer.put_slice(&data[..part]);
                data.advance(part);
                if data.is_empty() {
                    way.segments.pop_front();
                }
            }
            way.queued -= part;
            if let Some(writer) = way.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut link = this.link();
        let (side, peer) = (this.side, 1 - this.side);
        // The other end has reset it, and that has come here.
        let now = Instant::now();
        if link.ways[peer].segments.front().is_some_and(|(at, segment)| *at <= now && matches!(segment, Segment::Reset)) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if link.gone[peer] {
            // It takes a while until that is known here.
            let answered = link.ways[peer].segments.back().is_some_and(|(_, segment)| matches!(segment, Segment::Reset));
            if !answered {
                link.send(peer, Segment::Reset);
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        let room = link.ways[side].window.saturating_sub(link.ways[side].queued);
        if room == 0 {
            link.ways[side].writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let part = link.part(bytes.len().min(room));
        link.send(side, Segment::Data(Bytes::copy_from_slice(&bytes[..part])));
        Poll::Ready(Ok(part))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut link = self.link();
        if !link.ways[self.side].ended {
            link.send(self.side, Segment::End);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut link = self.link();
        let (side, peer) = (self.side, 1 - self.side);
        link.gone[side] = true;
        // Closed with bytes unread, a connection is reset (RFC 9112, section 9.6).
        let unread = link.ways[peer].queued > 0;
        if !link.ways[side].ended {
            link.send(side, if unread { Segment::Reset } else { Segment::End });
        } else if unread {
            link.send(side, Segment::Reset);
        }
        let waiting = [link.ways[side].reader.take(), link.ways[peer].writer.take(), link.leaving[peer].take()];
        drop(link);
        waiting.into_iter().flatten().for_each(Waker::wake);
        if side == 0 {
            self.world.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl End {
    /// Sends it in one piece, whatever the window.
    pub(super) fn push(&self, bytes: Bytes) {
        self.link().send(self.side, Segment::Data(bytes));
    }
}
