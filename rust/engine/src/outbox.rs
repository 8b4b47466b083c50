//! What the engine has to tell a front that lives in another world's event loop: a queue, and a descriptor that is
//! readable while the queue holds something. The engine never waits for the reader.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

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
    /// A request waits for credentials.
    Refresh {
        /// Of this identity.
        identity: String,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Vec<OutboxEvent>>,
    signalled: AtomicBool,
    writer: UnixStream,
    reader: UnixStream,
}

impl Outbox {
    pub(crate) fn new() -> io::Result<Self> {
        let (writer, reader) = UnixStream::pair()?;
        writer.set_nonblocking(true)?;
        reader.set_nonblocking(true)?;
        Ok(Self { queue: Mutex::default(), signalled: AtomicBool::new(false), writer, reader })
    }

    pub(crate) fn push(&self, event: OutboxEvent) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        if !self.signalled.swap(true, Ordering::AcqRel) {
            // Full means that it is readable already.
            let _ = (&self.writer).write(&[1]);
        }
    }

    pub(crate) fn take(&self) -> Vec<OutboxEvent> {
        if self.signalled.swap(false, Ordering::AcqRel) {
            let mut byte = [0; 64];
            let _ = (&self.reader).read(&mut byte);
        }
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_is_readable_exactly_while_something_is_there() {
        let outbox = Outbox::new().unwrap();
        let readable = || matches!((&outbox.reader).read(&mut [0; 0]), Ok(0)) && outbox.signalled.load(Ordering::Relaxed);
        assert!(!readable());
        outbox.push(OutboxEvent::Writable { job: 1 });
        outbox.push(OutboxEvent::Writable { job: 2 });
        assert!(readable());
        assert_eq!(outbox.take().len(), 2);
        assert!(!readable());
        let error = (&outbox.reader).read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
