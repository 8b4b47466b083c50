//! Bytes on sockets, with TLS or without: what both halves of a connection are made of.
//!
//! A [`Stream`] reads into a buffer of its own and writes from one, so that a whole message is one system call, and TLS records are
//! opened where they were read. HTTP is not known here; [`h1`](crate::h1) and HTTP/2's libraries stand on it.

mod bounded;
mod session;
mod socket;
mod stream;

pub(crate) use bounded::{Bounded, ReadLimit};
pub(crate) use session::as_io;
pub(crate) use socket::Socket;
pub(crate) use stream::{End, Stream};
