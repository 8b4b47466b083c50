//! The clients: what they ask for, how they fail, and what must hold of what they get.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use sigward_gateway::{BodySize, Entry, RequestHead, Scheme, Target};
use tokio::time::Instant;

use super::faults::Fault;
use super::random::Random;
use super::run::Sidecar;
use super::upstream::Seen;
use super::{HOSTS, World, locked};
use crate::body::{BodyError, Inbound};
use crate::drive::{Listener, drive};
use crate::job::UnderWay;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    GetItem,
    UpdateItem,
    /// Repeatable for the token that sigward adds.
    Transact,
    SendMessage,
    /// A customer's own endpoint.
    Custom,
    PutObject,
    GetObject,
    HeadObject,
    DeleteObject,
}

const KINDS: [Kind; 9] = [
    Kind::GetItem,
    Kind::UpdateItem,
    Kind::Transact,
    Kind::SendMessage,
    Kind::Custom,
    Kind::PutObject,
    Kind::GetObject,
    Kind::HeadObject,
    Kind::DeleteObject,
];

impl Kind {
    /// Twice is as good as once.
    pub(super) fn repeatable(self) -> bool {
        !matches!(self, Self::UpdateItem | Self::SendMessage | Self::Custom)
    }

    pub(super) fn is_s3(self) -> bool {
        matches!(self, Self::PutObject | Self::GetObject | Self::HeadObject | Self::DeleteObject)
    }

    fn method(self) -> Method {
        match self {
            Self::PutObject => Method::PUT,
            Self::GetObject => Method::GET,
            Self::HeadObject => Method::HEAD,
            Self::DeleteObject => Method::DELETE,
            _ => Method::POST,
        }
    }

    fn host(self) -> &'static str {
        HOSTS[match self {
            Self::GetItem | Self::UpdateItem | Self::Transact => 0,
            Self::SendMessage => 1,
            Self::Custom => 3,
            _ => 2,
        }]
    }

    fn target(self) -> Option<&'static str> {
        match self {
            Self::GetItem => Some("DynamoDB_20120810.GetItem"),
            Self::UpdateItem => Some("DynamoDB_20120810.UpdateItem"),
            Self::Transact => Some("DynamoDB_20120810.TransactWriteItems"),
            Self::SendMessage => Some("AmazonSQS.SendMessage"),
            _ => None,
        }
    }
}

/// One client's request, as all see it.
pub(super) struct Call {
    pub(super) kind: Kind,
    pub(super) body: Bytes,
    /// What came of each attempt that an upstream saw.
    pub(super) seen: Vec<Seen>,
    pub(super) executed: u32,
    /// The body that went out, where sigward adds to it.
    pub(super) token: Option<Bytes>,
    /// Attempts that sigward says it has made.
    pub(super) attempts: Option<usize>,
    /// Its client has its answer, or has gone.
    pub(super) over: bool,
}

/// Bytes that say whose they are.
pub(super) fn pattern(id: u64, size: usize) -> Bytes {
    (0..size).map(|at| (id as usize * 31 + at * 7 + (at >> 8)) as u8).collect::<Vec<u8>>().into()
}

/// Dropped when it has been polled so often.
struct Dropped<F> {
    future: Pin<Box<F>>,
    left: Option<u64>,
}

impl<F: Future> Future for Dropped<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        match &mut self.left {
            Some(0) => Poll::Ready(None),
            Some(left) => {
                *left -= 1;
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

/// One client, from its request to the end of the answer.
pub(super) async fn client(world: Arc<World>, sidecar: Arc<Sidecar>, id: u64) {
    let mut random = world.split();
    tokio::time::sleep(random.millis(0, 10_000)).await;
    let kind = random.pick(&KINDS);
    let size = random.pick(&[0, 0, 20, 1_000, 6_000, 50_000]);
    let body = match kind {
        Kind::GetObject | Kind::HeadObject | Kind::DeleteObject => Bytes::new(),
        Kind::PutObject => pattern(id, size),
        Kind::Custom => format!("{{\"id\":{id},\"pad\":\"{}\"}}", "y".repeat(size)).into(),
        _ => format!("{{\"TableName\":\"t\",\"id\":{id},\"pad\":\"{}\"}}", "x".repeat(size.min(3_000))).into(),
    };
    let call = Call { kind, body: body.clone(), seen: Vec::new(), executed: 0, token: None, attempts: None, over: false };
    locked(&world.calls).insert(id, call);
    let gone = world.fault(Fault::ClientGone, &mut random).then(|| random.between(0, 30));
    world.tell(|| format!("client {id}: {kind:?}, {} bytes{}", body.len(), if gone.is_some() { ", will be gone" } else { "" }));
    let whole = Dropped { future: Box::pin(asked(&world, &sidecar, id, kind, body, random)), left: gone };
    let outcome = whole.await;
    world.tell(|| format!("client {id}: {}", if outcome.is_some() { "has its answer" } else { "is gone" }));
    if let Some(call) = locked(&world.calls).get_mut(&id) {
        call.over = true;
    }
}

async fn asked(world: &Arc<World>, sidecar: &Arc<Sidecar>, id: u64, kind: Kind, body: Bytes, mut random: Random) {
    let random = &mut random;
    let mut headers = HeaderMap::new();
    headers.insert("x-sim-id", id.into());
    if let Some(target) = kind.target() {
        headers.insert("x-amz-target", HeaderValue::from_static(target));
        headers.insert("content-type", HeaderValue::from_static("application/x-amz-json-1.0"));
    }
    if random.chance(10) {
        headers.insert("x-sigward-deadline", random.between(1, 10).into());
    }
    let at_once = random.chance(60);
    let known = at_once || kind == Kind::PutObject || random.chance(50);
    let head = RequestHead {
        entry: Entry::Reverse,
        method: kind.method(),
        target: Target::new(Scheme::Https, kind.host(), 443).unwrap(),
        path: if kind.is_s3() { format!("/key/{id}") } else { "/".into() },
        headers,
        body: if known { BodySize::Known(body.len() as u64) } else { BodySize::Unknown },
        client: format!("10.9.0.{}", id % 5).into(),
        malformed: None,
    };
    let inbound = if at_once { Inbound::Whole(body) } else { Inbound::Other(pieces(world, body, random)) };
    let mut under_way = UnderWay::new(None, &sidecar.shared, &head);
    let pool = sidecar.pool.load_full();
    let total = sidecar.shared.config.load().settings.timeouts.total;
    let asked_at = Instant::now();
    let mut informed = |_, _: &HeaderMap| {};
    let listener = Listener { informed: Some(&mut informed) };
    let mut answer = drive(&sidecar.shared, &pool, head, inbound, listener, false, &mut under_way).await;
    under_way.tell(&mut answer);
    let (took, record) = (asked_at.elapsed(), &answer.record);
    let (attempts, error) = (record.attempts.len(), record.error);
    world.tell(|| {
        format!(
            "client {id}: {} {} after {attempts} attempts: {:?}",
            answer.response.status(),
            error.unwrap_or("-"),
            record.attempts.iter().map(|attempt| &attempt.outcome).collect::<Vec<_>>()
        )
    });
    if let Some(call) = locked(&world.calls).get_mut(&id) {
        call.attempts = Some(attempts);
    }
    world.check(attempts <= super::run::MOST_ATTEMPTS + 3, || format!("request {id}: {attempts} attempts"));
    for attempt in &record.attempts {
        let most = super::run::CAP + Duration::from_secs(5);
        world.check(attempt.waited <= most, || format!("request {id}: it waited {:?} between attempts", attempt.waited));
    }
    if let Some(total) = total.filter(|_| at_once) {
        let late = total + Duration::from_millis(5);
        world.check(took <= late, || format!("request {id}: its answer took {took:?}, timeouts.total is {total:?}"));
    }
    received(world, id, kind, error.is_some(), answer.response, random).await;
}

/// Reads an answer to its end, and looks whether it is the right one.
async fn received(world: &World, id: u64, kind: Kind, own: bool, response: http::Response<crate::drive::AnswerBody>, random: &mut Random) {
    let (head, mut body) = response.into_parts();
    let number = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let slow = world.fault(Fault::ClientSlow, random);
    let (mut read, mut pauses) = (BytesMut::new(), 0);
    let broken = loop {
        if slow && pauses < 20 && random.chance(20) {
            pauses += 1;
            tokio::time::sleep(random.millis(0, 1000)).await;
        }
        match body.frame().await {
            None => break None,
            Some(Err(error)) => break Some(error),
            Some(Ok(frame)) => read.extend(frame.into_data().ok()),
        }
    };
    if let Some(broken) = broken {
        world.tell(|| format!("client {id}: its answer broke off: {broken}"));
        return;
    }
    if own {
        world.check(head.headers.contains_key("x-sigward-error"), || format!("request {id}: an error without x-sigward-error"));
        return;
    }
    let (whose, length) = (number("x-sim-id"), number("x-sim-length"));
    world.check(whose == Some(id), || format!("request {id} got the answer to {whose:?}"));
    let head_only = kind == Kind::HeadObject;
    let complete = head_only || length == Some(read.len() as u64);
    world.check(complete, || format!("request {id}: {} bytes of {length:?} count as the whole answer", read.len()));
    if head.status == 200 {
        let executed = locked(&world.calls).get(&id).map_or(0, |call| call.executed);
        world.check(executed > 0, || format!("request {id} got 200 and was not executed"));
        world.check(head_only || read == pattern(id + 7, read.len()), || format!("request {id}: its answer's body is another's"));
    }
}

/// A body that comes in pieces.
fn pieces(world: &Arc<World>, body: Bytes, random: &mut Random) -> http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError> {
    let (world, random) = (Arc::clone(world), random.split());
    let stream = futures_util::stream::unfold((world, body, random, false), |(world, mut body, mut random, broken)| async move {
        if body.is_empty() || broken {
            return None;
        }
        tokio::time::sleep(random.millis(0, 20)).await;
        if world.fault(Fault::ClientStalls, &mut random) {
            tokio::time::sleep(random.millis(0, 6000)).await;
        }
        if world.fault(Fault::ClientBreaks, &mut random) {
            return Some((Err(BodyError::Client("the client stopped".into())), (world, body, random, true)));
        }
        let piece = body.split_to(random.size(1, body.len()));
        Some((Ok(Frame::data(piece)), (world, body, random, false)))
    });
    StreamBody::new(stream).boxed_unsync()
}
