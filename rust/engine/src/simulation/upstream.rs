//! The upstreams: what they execute, what they answer, and how they fail. They see whether a connection is used as it must be.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::clients::{Kind, pattern};
use super::faults::Fault;
use super::network::End;
use super::random::Random;
use super::{World, locked};

/// How the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    Close,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody but the upstream knows whether it was executed.
    Begun,
    /// The answer says that nothing was done.
    Declined,
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

/// An attempt, as the upstream reads it.
struct Arrived {
    id: u64,
    attempt: usize,
    head_only: bool,
}

impl World {
    /// A head has come.
    fn arrived(&self, headers: &HeaderMap, method: &str, connection: u64) -> Option<Arrived> {
        let id = headers.get("x-sim-id").and_then(|value| value.to_str().ok()?.parse().ok());
        let Some(id) = id else {
            self.violation(|| format!("connection {connection}: a request of nobody's"));
            return None;
        };
        let mut calls = locked(&self.calls);
        let Some(call) = calls.get_mut(&id) else {
            drop(calls);
            self.violation(|| format!("connection {connection}: request {id} is unknown"));
            return None;
        };
        let again = !call.kind.repeatable() && !self.plan.repeats_all && call.seen.contains(&Seen::Begun);
        call.seen.push(Seen::Begun);
        let (attempt, kind) = (call.seen.len() - 1, call.kind);
        drop(calls);
        self.tell(|| format!("connection {connection}: request {id}, {kind:?}, time {}", attempt + 1));
        self.check(!again, || format!("request {id}, a {kind:?}, was sent again though it may have been executed"));
        Some(Arrived { id, attempt, head_only: method == "HEAD" })
    }

    /// It is whole: it must be what the client sent.
    fn whole(&self, arrived: &Arrived, headers: &HeaderMap, body: &[u8]) {
        let mut calls = locked(&self.calls);
        let Some(call) = calls.get_mut(&arrived.id) else { return };
        let same = if call.kind == Kind::Transact {
            // The token that makes it repeatable is the same in each attempt. Without a token (`retry.mode = "off"`) there is one.
            let same = call.token.as_ref().is_none_or(|token| token == body);
            call.token = Some(Bytes::copy_from_slice(body));
            let alone = !call.seen[..arrived.attempt].contains(&Seen::Begun);
            same && (memchr::memmem::find(body, b"ClientRequestToken").is_some() || (call.body == body && alone))
        } else {
            call.body == body
        };
        let signed = headers.contains_key("authorization");
        drop(calls);
        self.check(same, || format!("request {}: its body is another, {} bytes", arrived.id, body.len()));
        self.check(signed, || format!("request {} is not signed", arrived.id));
    }

    fn declined(&self, arrived: &Arrived) {
        if let Some(call) = locked(&self.calls).get_mut(&arrived.id) {
            call.seen[arrived.attempt] = Seen::Declined;
        }
    }

    fn execute(&self, arrived: &Arrived) {
        if let Some(call) = locked(&self.calls).get_mut(&arrived.id) {
            call.executed += 1;
        }
        self.tell(|| format!("request {} is executed", arrived.id));
    }

    fn kind(&self, id: u64) -> Kind {
        locked(&self.calls).get(&id).map_or(Kind::GetItem, |call| call.kind)
    }

    /// What becomes of a request that has come whole.
    fn answer(&self, arrived: &Arrived, headers: &HeaderMap, random: &mut Random) -> Reply {
        let kind = self.kind(arrived.id);
        let failed = |status: u16, code: &str, in_header: bool| {
            let mut reply = Reply { status, headers: Vec::new(), body: Bytes::new() };
            if kind.is_s3() {
                reply.body =
                    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><RequestId>{}</RequestId></Error>", arrived.id).into();
            } else {
                if in_header {
                    reply.headers.push(("x-amzn-errortype", format!("{code}:http://internal.amazon.com/")));
                }
                reply.body = format!("{{\"__type\":\"com.amazonaws.sim#{code}\",\"id\":{}}}", arrived.id).into();
            }
            reply
        };
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let signed_at = seconds_of(&text("x-amz-date")).unwrap_or_default();
        if signed_at.abs_diff(self.true_seconds()) > 300 {
            self.declined(arrived);
            return if kind.is_s3() { failed(403, "RequestTimeTooSkewed", false) } else { failed(400, "InvalidSignatureException", false) };
        }
        let key = text("authorization").split_once("AKIASIM").and_then(|(_, rest)| rest.split('/').next()?.parse::<usize>().ok());
        let expires = key.and_then(|key| locked(&self.keys).get(key).copied());
        self.check(expires.is_some(), || format!("request {} is signed with keys of nobody's", arrived.id));
        if expires.is_some_and(|at| at <= self.true_seconds()) {
            self.declined(arrived);
            return if kind.is_s3() { failed(400, "ExpiredToken", false) } else { failed(400, "ExpiredTokenException", random.chance(50)) };
        }
        if self.fault(Fault::Throttled, random) {
            self.declined(arrived);
            let mut reply = match random.below(3) {
                _ if kind.is_s3() => failed(503, "SlowDown", false),
                0 => failed(429, "TooManyRequestsException", random.chance(50)),
                _ => failed(400, "ThrottlingException", random.chance(50)),
            };
            if random.chance(20) {
                reply.headers.push(("retry-after", random.between(0, 20).to_string()));
            }
            return reply;
        }
        if self.fault(Fault::Transient, random) {
            if random.chance(50) {
                self.execute(arrived);
            }
            let mut reply = failed(random.pick(&[500, 502, 503, 504]), "InternalError", random.chance(50));
            if random.chance(30) {
                reply.headers.clear();
                reply.body = Bytes::new();
            }
            return reply;
        }
        if self.fault(Fault::Declined, random) {
            self.declined(arrived);
            return failed(400, "ValidationException", random.chance(50));
        }
        self.execute(arrived);
        let size = random.pick(&[0, 10, 300, 5_000, 40_000]);
        Reply { status: 200, headers: Vec::new(), body: if arrived.head_only { Bytes::new() } else { pattern(arrived.id + 7, size) } }
    }

    /// Of a reply: which call it belongs to, and how the client can see that it is whole.
    fn marked(&self, arrived: &Arrived, reply: &mut Reply) {
        reply.headers.push(("x-sim-id", arrived.id.to_string()));
        reply.headers.push(("x-sim-length", reply.body.len().to_string()));
        reply.headers.push(("date", date(self.true_seconds())));
        self.tell(|| format!("request {}: answered {}, {} bytes", arrived.id, reply.status, reply.body.len()));
    }
}

/// One connection, from its first byte on.
pub(super) async fn serve(world: Arc<World>, mut io: End, number: u64) {
    let mut random = world.split();
    let Ok(offered) = io.read_u8().await else { return };
    if world.fault(Fault::HandshakeHangs, &mut random) {
        return io.left().await;
    }
    if world.fault(Fault::HandshakeCut, &mut random) {
        if random.chance(50) {
            io.reset(false);
        }
        return;
    }
    if world.fault(Fault::Untrusted, &mut random) {
        let _ = io.write_all(b"!").await;
        return;
    }
    let http2 = offered == b'2' && world.plan.speaks_http2;
    if io.write_all(if http2 { b"2" } else { b"1" }).await.is_err() {
        return;
    }
    if http2 {
        http2_connection(world, io, number, random).await;
    } else {
        http1_connection(world, io, number, random).await;
    }
}

struct Head {
    method: String,
    headers: HeaderMap,
}

async fn more(io: &mut End, buffer: &mut BytesMut) -> bool {
    matches!(io.read_buf(buffer).await, Ok(size) if size > 0)
}

async fn read_head(io: &mut End, buffer: &mut BytesMut) -> Option<Head> {
    loop {
        if let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            let head = buffer.split_to(end + 4);
            let mut found = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut found);
            request.parse(&head).ok()?;
            let method = request.method?.to_owned();
            let pair = |header: &httparse::Header<'_>| {
                Some((header.name.parse::<http::HeaderName>().ok()?, http::HeaderValue::from_bytes(header.value).ok()?))
            };
            let headers = request.headers.iter().filter_map(pair).collect();
            return Some(Head { method, headers });
        }
        if !more(io, buffer).await {
            return None;
        }
    }
}

/// The body, or `None` if the connection ended in it.
async fn read_body(io: &mut End, buffer: &mut BytesMut, headers: &HeaderMap) -> Option<BytesMut> {
    if let Some(length) = headers.get("content-length") {
        let length: usize = length.to_str().ok()?.parse().ok()?;
        while buffer.len() < length {
            if !more(io, buffer).await {
                return None;
            }
        }
        return Some(buffer.split_to(length));
    }
    let mut body = BytesMut::new();
    if !headers.contains_key("transfer-encoding") {
        return Some(body);
    }
    loop {
        while memchr::memmem::find(buffer, b"\r\n").is_none() {
            if !more(io, buffer).await {
                return None;
            }
        }
        let end = memchr::memmem::find(buffer, b"\r\n")?;
        let line = buffer.split_to(end + 2);
        let size = usize::from_str_radix(std::str::from_utf8(&line[..end]).ok()?, 16).ok()?;
        while buffer.len() < size + 2 {
            if !more(io, buffer).await {
                return None;
            }
        }
        body.extend_from_slice(&buffer.split_to(size));
        let _ = buffer.split_to(2);
        if size == 0 {
            return Some(body);
        }
    }
}

/// The connection must not be used again: whatever still comes is a mistake.
async fn expect_nothing(world: &World, mut io: End, number: u64, mut buffer: BytesMut, why: &str) {
    if !buffer.is_empty() || more(&mut io, &mut buffer).await {
        world.violation(|| format!("connection {number} was used again {why}"));
    }
    io.left().await;
}

async fn http1_connection(world: Arc<World>, mut io: End, number: u64, mut random: Random) {
    let random = &mut random;
    let mut buffer = BytesMut::new();
    loop {
        let Some(head) = read_head(&mut io, &mut buffer).await else { return };
        let Some(arrived) = world.arrived(&head.headers, &head.method, number) else { return };
        if world.fault(Fault::ResetOnHead, random) {
            if random.chance(50) {
                io.reset(random.chance(50));
            }
            return;
        }
        if world.fault(Fault::SilentOnHead, random) {
            return io.left().await;
        }
        let framing = if random.chance(40) { Framing::Chunked } else { Framing::Length };
        let has_body =
            head.headers.get("content-length").is_none_or(|length| length != "0") && head.method != "GET" && head.method != "HEAD";
        if has_body && world.fault(Fault::Early, random) {
            world.declined(&arrived);
            let mut reply = Reply { status: 400, headers: Vec::new(), body: r#"{"__type":"ValidationException"}"#.into() };
            world.marked(&arrived, &mut reply);
            let closes = random.chance(50);
            if closes {
                reply.headers.push(("connection", "close".into()));
            }
            if write_reply(&mut io, &reply, framing, arrived.head_only, closes).await.is_err() {
                return;
            }
            if closes {
                let _ = io.shutdown().await;
                while more(&mut io, &mut buffer).await {
                    buffer.clear();
                }
                return;
            }
            if read_body(&mut io, &mut buffer, &head.headers).await.is_none() {
                return;
            }
            continue;
        }
        if world.fault(Fault::Informational, random) {
            for _ in 0..random.between(1, 3) {
                let line =
                    random.pick(&["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\ncontent-length: 5\r\n\r\n"]);
                if io.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
        let Some(body) = read_body(&mut io, &mut buffer, &head.headers).await else { return };
        world.whole(&arrived, &head.headers, &body);
        if world.fault(Fault::Slow, random) {
            tokio::time::sleep(random.millis(0, 4000)).await;
        }
        if world.fault(Fault::SilentAfterBody, random) {
            if random.chance(50) {
                world.execute(&arrived);
            }
            return expect_nothing(&world, io, number, buffer, "though no answer had come").await;
        }
        if world.fault(Fault::ResetAfterBody, random) {
            if random.chance(50) {
                world.execute(&arrived);
            }
            return io.reset(random.chance(50));
        }
        if world.fault(Fault::ClosedAfterBody, random) {
            if random.chance(50) {
                world.execute(&arrived);
            }
            return;
        }
        if world.fault(Fault::Garbage, random) {
            let _ = io
                .write_all(
                    random
                        .pick(&["\0\0\0\0\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: a\r\n\r\n"])
                        .as_bytes(),
                )
                .await;
            return expect_nothing(&world, io, number, buffer, "though what came on it was no answer").await;
        }
        let mut reply = world.answer(&arrived, &head.headers, random);
        world.marked(&arrived, &mut reply);
        let framing = if random.chance(5) { Framing::Close } else { framing };
        let closes = framing == Framing::Close || world.fault(Fault::SaysClose, random);
        if closes {
            reply.headers.push(("connection", "close".into()));
        }
        let bytes = written(&reply, framing, arrived.head_only);
        let begins = memchr::memmem::find(&bytes, b"\r\n\r\n").map_or(0, |end| end + 4);
        if world.fault(Fault::CutHead, random) {
            let _ = io.write_all(&bytes[..random.size(0, begins - 1)]).await;
            if random.chance(50) {
                io.reset(random.chance(50));
            }
            return;
        }
        if begins < bytes.len() && framing != Framing::Close {
            if world.fault(Fault::CutBody, random) {
                let _ = io.write_all(&bytes[..random.size(begins, bytes.len() - 1)]).await;
                if random.chance(50) {
                    io.reset(random.chance(50));
                }
                return;
            }
            if world.fault(Fault::StalledBody, random) {
                let _ = io.write_all(&bytes[..random.size(begins, bytes.len() - 1)]).await;
                return expect_nothing(&world, io, number, buffer, "though its answer was not over").await;
            }
        }
        if !closes && world.fault(Fault::Dirty, random) {
            // In one piece: had it come later, nobody could tell it from the answer to the next request.
            let more = random.pick(&["HTTP/1.1 200 OK\r\nx-sim-id: 0\r\ncontent-length: 0\r\n\r\n", "\r\n", "x"]);
            let all = [&bytes[..], more.as_bytes()].concat();
            io.push(all.into());
            return expect_nothing(&world, io, number, buffer, "though bytes lay on it").await;
        }
        let sent = if world.fault(Fault::Trickle, random) { trickle(&mut io, &bytes, random).await } else { io.write_all(&bytes).await };
        if sent.is_err() {
            return;
        }
        if closes {
            let _ = io.shutdown().await;
            return expect_nothing(&world, io, number, buffer, "though the upstream had said that it closes it").await;
        }
        if world.fault(Fault::ClosesQuietly, random) {
            let pause = random.millis(0, 3000);
            if tokio::time::timeout(pause, io.read_buf(&mut buffer)).await.is_err() {
                return;
            }
            if buffer.is_empty() {
                return;
            }
        }
    }
}

async fn trickle(io: &mut End, bytes: &[u8], random: &mut Random) -> std::io::Result<()> {
    let mut left = bytes;
    let most = (bytes.len() / 10).max(20);
    while !left.is_empty() {
        let (piece, rest) = left.split_at(random.size(1, most).min(left.len()));
        io.write_all(piece).await?;
        left = rest;
        tokio::time::sleep(random.millis(0, 1500)).await;
    }
    Ok(())
}

async fn write_reply(io: &mut End, reply: &Reply, framing: Framing, head_only: bool, closes: bool) -> std::io::Result<()> {
    let framing = if closes && framing == Framing::Close { Framing::Length } else { framing };
    io.write_all(&written(reply, framing, head_only)).await
}

fn written(reply: &Reply, framing: Framing, head_only: bool) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {} Any\r\n", reply.status).into_bytes();
    for (name, value) in &reply.headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    match framing {
        Framing::Length => bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", reply.body.len()).as_bytes()),
        Framing::Chunked => bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
        Framing::Close => bytes.extend_from_slice(b"\r\n"),
    }
    if head_only {
        return bytes;
    }
    if framing == Framing::Chunked {
        for chunk in reply.body.chunks(3000) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    } else {
        bytes.extend_from_slice(&reply.body);
    }
    bytes
}

async fn http2_connection(world: Arc<World>, io: End, number: u64, mut random: Random) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(random.pick(&[1, 3, 100]));
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    let mut streams = tokio::task::JoinSet::new();
    loop {
        let Some(Ok((request, respond))) = connection.accept().await else { break };
        if world.fault(Fault::ResetOnHead, &mut random) {
            // All that is on it breaks.
            break;
        }
        if world.fault(Fault::GoAway, &mut random) {
            connection.graceful_shutdown();
        }
        streams.spawn(http2_stream(Arc::clone(&world), request, respond, number, random.split()));
    }
    streams.abort_all();
}

async fn http2_stream(
    world: Arc<World>,
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    number: u64,
    mut random: Random,
) {
    let random = &mut random;
    let (head, mut inbound) = request.into_parts();
    let Some(arrived) = world.arrived(&head.headers, head.method.as_str(), number) else { return };
    if world.fault(Fault::StreamRefused, random) {
        world.declined(&arrived);
        return respond.send_reset(h2::Reason::REFUSED_STREAM);
    }
    if world.fault(Fault::SilentOnHead, random) {
        let _ = std::future::poll_fn(|context| respond.poll_reset(context)).await;
        return;
    }
    let mut body = BytesMut::new();
    loop {
        match inbound.data().await {
            Some(Ok(data)) => {
                let _ = inbound.flow_control().release_capacity(data.len());
                body.extend_from_slice(&data);
            }
            Some(Err(_)) => return,
            None => break,
        }
    }
    world.whole(&arrived, &head.headers, &body);
    if world.fault(Fault::Slow, random) {
        tokio::time::sleep(random.millis(0, 4000)).await;
    }
    if world.fault(Fault::SilentAfterBody, random) {
        if random.chance(50) {
            world.execute(&arrived);
        }
        let _ = std::future::poll_fn(|context| respond.poll_reset(context)).await;
        return;
    }
    if world.fault(Fault::StreamReset, random) {
        if random.chance(50) {
            world.execute(&arrived);
        }
        return respond.send_reset(random.pick(&[h2::Reason::INTERNAL_ERROR, h2::Reason::CANCEL, h2::Reason::NO_ERROR]));
    }
    let mut reply = world.answer(&arrived, &head.headers, random);
    world.marked(&arrived, &mut reply);
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(reply.status).unwrap();
    for (name, value) in &reply.headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    if random.chance(50) || arrived.head_only {
        response.headers_mut().insert("content-length", reply.body.len().into());
    }
    let ends = reply.body.is_empty() || arrived.head_only;
    let Ok(mut sending) = respond.send_response(response, ends) else { return };
    if ends {
        return;
    }
    let whole = reply.body.len();
    if world.fault(Fault::CutBody, random) {
        let _ = sending.send_data(reply.body.slice(..random.size(0, whole - 1)), false);
        tokio::time::sleep(random.millis(0, 10)).await;
        return sending.send_reset(h2::Reason::INTERNAL_ERROR);
    }
    if world.fault(Fault::StalledBody, random) {
        let _ = sending.send_data(reply.body.slice(..random.size(0, whole - 1)), false);
        let _ = std::future::poll_fn(|context| sending.poll_reset(context)).await;
        return;
    }
    if world.fault(Fault::Trickle, random) {
        let mut left = reply.body;
        while left.len() > whole / 10 + 20 {
            let piece = left.split_to(random.size(1, whole / 10 + 20));
            if sending.send_data(piece, false).is_err() {
                return;
            }
            tokio::time::sleep(random.millis(0, 1500)).await;
        }
        let _ = sending.send_data(left, true);
        return;
    }
    let _ = sending.send_data(reply.body, true);
}

/// Days since 1970 of a date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Seconds of `20270115T080000Z`.
fn seconds_of(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let days = days_of(number(0, 4)?, number(4, 6)?, number(6, 8)?);
    u64::try_from(days * 86_400 + number(9, 11)? * 3600 + number(11, 13)? * 60 + number(13, 15)?).ok()
}

/// As `Date` has it.
fn date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = (seconds / 86_400) as i64;
    let mut year = 1970;
    while days_of(year + 1, 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| days_of(year, *month, 1) <= days).unwrap_or(1);
    let day = days - days_of(year, month, 1) + 1;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (name, month) = (DAYS[(days % 7) as usize], MONTHS[(month - 1) as usize]);
    format!("{name}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// The pause between two looks of those who look again and again.
pub(super) const TICK: Duration = Duration::from_millis(50);
