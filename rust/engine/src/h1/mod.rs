//! HTTP/1.1 on a [`Stream`](crate::net::Stream), for both halves: the native front serves clients with it, and every front's requests go
//! upstream with it.
//!
//! Why not hyper's: a request through hyper's server, its pooled client and the channels between them costs about twice what the whole
//! of it costs here. httparse reads the heads, as it does for hyper; what bodies are framed by is decided here, strictly: whatever two
//! readers could understand in two ways is refused (RFC 9112, section 11.2).

pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod head;
