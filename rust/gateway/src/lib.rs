//! Every decision that sigward makes about a request, without I/O, clock or thread.
//!
//! A request walks forward through the rooms of this crate, one module each:
//! [`admit`] → [`recognise`] → [`route`] → [`pace`] → [`sign`] → (the driver sends) → [`judge`] → [`record`], and never back
//! except to try again. [`Exchange`] joins them: a driver feeds it [`Event`]s and carries out the [`Step`]s it answers with.
//! Here live no sockets and no secrets but the credential snapshots in [`Identities`]; the engine calls, nothing is called.

pub mod address;
pub mod admit;
pub mod body;
pub mod circuit;
pub mod client;
mod edit;
pub mod exchange;
pub mod identity;
pub mod interception;
pub mod judge;
pub mod knowledge;
pub mod labels;
pub mod live;
mod location;
pub mod pace;
pub mod quota;
pub mod recognise;
pub mod record;
pub mod refuse;
mod resource;
pub mod route;
pub mod rules;
pub mod settings;
pub mod sign;
pub mod slugs;
pub mod throttles;
mod token;
mod via;

pub use address::{is_forbidden, is_forbidden_host};
pub use admit::{BodySize, Entry, RequestHead, Scheme, Target, normal_host};
pub use body::Wrap;
pub use client::Clients;
pub use exchange::{BodyPlan, Config, Event, Exchange, Failure, Keep, Load, Moment, Outgoing, Step};
pub use identity::{Identities, Identity};
pub use interception::{FirstBytes, Handling, Opening, first_bytes, speaks_http};
pub use live::Live;
pub use record::{Attempt, Disposition, Record};
pub use refuse::{Fault, Reader, Refusal, Shape};
pub use route::Upstream;
pub use via::{Hop, leads_back};
