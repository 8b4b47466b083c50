//! What the engine has to tell a front that lives in another world's event loop: a queue, and a descriptor that is
//! readable while the queue holds something. The engine never waits for the reader.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use sigward_gateway::Record;

/// One thing to tell.
#[derive(Debug)]
pub enum OutboxEvent {
    /// The head, and what data came with it.
    Response {
        /// Whose.
        job: u64,
        /// Status.
        status: StatusCode,
        /// End-to-end headers.
        headers: HeaderMap,
        /// First data.
        data: Bytes,
        /// The answer is complete.
        end: bool,
        /// For the operator.
        record: Box<Record>,
    },
    /// More data.
    Data {
        /// Whose.
        job: u64,
        /// Bytes.
        data: Bytes,
        /// The answer is complete.
        end: bool,
    },
    /// The answer is complete, with trailers.
    Trailers {
        /// Whose.
        job: u64,
        /// Names and values.
        trailers: HeaderMap,
    },
    /// The answer broke off after its head.
    Failed {
        /// Whose.
        job: u64,
        /// Why.
        message: String,
    },
    /// The upload queue has room again.
    Writable {
        /// Whose.
        job: u64,
    },
    /// A line for the log.
    Log {
        /// How bad it is.
        level: tracing::Level,
        /// Who tells it: a module's path.
        target: &'static str,
        /// What it tells.
        said: Said,
    },
    /// A request waits for credentials.
    Refresh {
        /// Of this identity.
        identity: String,
    },
}

/// A line's words, without a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// One line.
    pub message: String,
    /// Names and values that go with it.
    pub fields: Vec<(&'static str, String)>,
}

/// Lines for the log that wait to be taken, at most: requests bound the other events, nothing bounds these.
const MOST_LOGS: usize = 1000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    signalled: AtomicBool,
    writer: UnixStream,
    reader: UnixStream,
}

#[derive(Debug, Default)]
struct Queue {
    events: Vec<OutboxEvent>,
    logs: usize,
}

impl Outbox {
    pub(crate) fn new() -> io::Result<Self> {
        let (writer, reader) = UnixStream::pair()?;
        writer.set_nonblocking(true)?;
        reader.set_nonblocking(true)?;
        Ok(Self { queue: Mutex::default(), signalled: AtomicBool::new(false), writer, reader })
    }

    pub(crate) fn push(&self, event: OutboxEvent) {
        self.queue().events.push(event);
        self.signal();
    }

    /// A line for the log. False: too many wait already.
    pub(crate) fn push_log(&self, event: OutboxEvent) -> bool {
        let mut queue = self.queue();
        if queue.logs >= MOST_LOGS {
            return false;
        }
        queue.logs += 1;
        queue.events.push(event);
        drop(queue);
        self.signal();
        true
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) {
        if !self.signalled.swap(true, Ordering::SeqCst) {
            // Full means that it is readable already.
            let _ = (&self.writer).write(&[1]);
        }
    }

    pub(crate) fn take(&self) -> Vec<OutboxEvent> {
        // In this order: a push before the flag falls is in the queue that is taken; one after it signals anew.
        let mut bytes = [0; 64];
        let _ = (&self.reader).read(&mut bytes);
        self.signalled.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.queue()).events
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every event that is pushed is taken by a reader that reads only when the descriptor says so.
    #[test]
    fn no_event_waits_for_the_next_one() {
        const EVENTS: usize = 200_000;
        let outbox = std::sync::Arc::new(Outbox::new().unwrap());
        // `take` reads, and here the read blocks until there is something to read: a lost signal blocks it for ever.
        outbox.reader.set_nonblocking(false).unwrap();
        let (pushing, taking) = (std::sync::Arc::clone(&outbox), std::sync::Arc::clone(&outbox));
        std::thread::spawn(move || {
            for job in 0..EVENTS as u64 {
                pushing.push(OutboxEvent::Writable { job });
            }
        });
        let (done, all_taken) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut taken = 0;
            while taken < EVENTS {
                taken += taking.take().len();
            }
            done.send(taken).unwrap();
        });
        assert_eq!(all_taken.recv_timeout(std::time::Duration::from_secs(60)), Ok(EVENTS));
    }
}
