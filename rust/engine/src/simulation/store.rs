//! The fleet's store: enough of Redis for the engine's script, which runs as it is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use mlua::{Lua, Value, Variadic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::faults::Fault;
use super::network::End;
use super::{World, locked};

type Data = BTreeMap<String, BTreeMap<String, String>>;

/// See the module.
pub(super) struct Store {
    down: AtomicBool,
    /// All connections end.
    cut: Notify,
    /// Milliseconds that an answer takes.
    delay: AtomicU64,
    /// Milliseconds that its clock is ahead.
    ahead: AtomicI64,
    data: Arc<Mutex<Data>>,
    scripts: Mutex<BTreeMap<String, mlua::Function>>,
    lua: Lua,
    now: Arc<AtomicU64>,
}

impl Store {
    pub(super) fn new() -> Self {
        let (lua, data, now) = (Lua::new(), Arc::new(Mutex::new(Data::new())), Arc::new(AtomicU64::new(0)));
        let (theirs, at) = (Arc::clone(&data), Arc::clone(&now));
        let call = lua.create_function(move |lua, arguments: Variadic<Value>| {
            command(lua, &mut locked(&theirs), at.load(Ordering::Relaxed), &arguments)
        });
        let redis = lua.create_table().unwrap();
        redis.set("call", call.unwrap()).unwrap();
        lua.globals().set("redis", redis).unwrap();
        Self {
            down: AtomicBool::new(false),
            cut: Notify::new(),
            delay: AtomicU64::new(0),
            ahead: AtomicI64::new(0),
            data,
            scripts: Mutex::default(),
            lua,
            now,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// From here on nobody reaches it; whoever is connected loses the connection.
    pub(super) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
        if down {
            self.cut.notify_waiters();
        }
    }

    /// Another takes its place: it knows nothing, and its clock is its own.
    pub(super) fn fail_over(&self, ahead: i64) {
        locked(&self.data).clear();
        locked(&self.scripts).clear();
        self.ahead.store(ahead, Ordering::Relaxed);
        self.cut.notify_waiters();
    }

    pub(super) fn set_delay(&self, millis: u64) {
        self.delay.store(millis, Ordering::Relaxed);
    }

    /// What somebody else may have written there.
    pub(super) fn spoil(&self, value: &str) {
        for hash in locked(&self.data).values_mut() {
            for field in hash.values_mut() {
                value.clone_into(field);
            }
        }
    }

    fn load(&self, script: &str) -> String {
        let name = redis::Script::new(script).get_hash().to_owned();
        let function = self.lua.load(script).into_function().unwrap();
        locked(&self.scripts).insert(name.clone(), function);
        name
    }

    /// A command's answer, as it goes over the wire.
    fn answer(&self, world: &World, arguments: &[String]) -> String {
        let part = |at: usize| arguments.get(at).map(String::as_str).unwrap_or_default();
        let millis = 1000 * super::EPOCH + world.began.elapsed().as_millis() as u64;
        self.now.store(millis.saturating_add_signed(self.ahead.load(Ordering::Relaxed)), Ordering::Relaxed);
        match part(0).to_ascii_uppercase().as_str() {
            "PING" => "+PONG\r\n".into(),
            "CLIENT" | "SELECT" => "+OK\r\n".into(),
            "SCRIPT" => bulk(&self.load(part(2))),
            "EVALSHA" => {
                let Some(function) = locked(&self.scripts).get(part(1)).cloned() else { return "-NOSCRIPT No matching script\r\n".into() };
                let keys = part(2).parse().unwrap_or(0);
                let texts = |from: usize, to: usize| self.lua.create_sequence_from(arguments[from..to].iter().map(String::as_str)).unwrap();
                self.lua.globals().set("KEYS", texts(3, 3 + keys)).unwrap();
                self.lua.globals().set("ARGV", texts(3 + keys, arguments.len())).unwrap();
                match function.call::<Value>(()) {
                    Ok(given) => {
                        world.tell(|| format!("store: {:?} gives {given:#?}", &arguments[3 + keys..]));
                        encoded(&given)
                    }
                    Err(error) => {
                        world.violation(|| format!("the store's script failed: {error}"));
                        "-ERR script\r\n".into()
                    }
                }
            }
            other => format!("-ERR unknown command {other}\r\n"),
        }
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// What a script gives, as it goes over the wire.
fn encoded(value: &Value) -> String {
    match value {
        Value::String(text) => bulk(&text.to_string_lossy()),
        Value::Integer(number) => format!(":{number}\r\n"),
        Value::Number(number) => format!(":{}\r\n", *number as i64),
        Value::Table(items) => {
            let items: Vec<String> = items.sequence_values::<Value>().map(|item| encoded(&item.unwrap())).collect();
            format!("*{}\r\n{}", items.len(), items.concat())
        }
        _ => "$-1\r\n".into(),
    }
}

/// What a script calls.
fn command(lua: &Lua, data: &mut Data, now: u64, arguments: &[Value]) -> mlua::Result<Value> {
    let texts: Vec<String> = arguments.iter().map(Value::to_string).collect::<mlua::Result<_>>()?;
    let part = |at: usize| texts.get(at).map(String::as_str).unwrap_or_default();
    let text = |value: Option<&String>| value.map_or(Ok(Value::Boolean(false)), |value| lua.create_string(value).map(Value::String));
    match part(0).to_ascii_uppercase().as_str() {
        "TIME" => {
            let pair = [format!("{}", now / 1000), format!("{}", now % 1000 * 1000)];
            Ok(Value::Table(lua.create_sequence_from(pair)?))
        }
        "TYPE" => {
            let kind = if data.contains_key(part(1)) { "hash" } else { "none" };
            Ok(Value::Table(lua.create_table_from([("ok", kind)])?))
        }
        "HLEN" => Ok(Value::Integer(data.get(part(1)).map_or(0, BTreeMap::len) as _)),
        "HGET" => text(data.get(part(1)).and_then(|hash| hash.get(part(2)))),
        "HSET" => {
            let hash = data.entry(part(1).to_owned()).or_default();
            for pair in texts[2..].chunks_exact(2) {
                hash.insert(pair[0].clone(), pair[1].clone());
            }
            Ok(Value::Integer(1))
        }
        "HDEL" => {
            if let Some(hash) = data.get_mut(part(1)) {
                texts[2..].iter().for_each(|field| drop(hash.remove(field)));
            }
            Ok(Value::Integer(1))
        }
        "HGETALL" => {
            let all = data.get(part(1)).into_iter().flatten().flat_map(|(field, value)| [field.clone(), value.clone()]);
            Ok(Value::Table(lua.create_sequence_from(all)?))
        }
        "DEL" => {
            data.remove(part(1));
            Ok(Value::Integer(1))
        }
        "PEXPIRE" | "EXPIRE" => Ok(Value::Integer(1)),
        other => Err(mlua::Error::runtime(format!("the simulated store does not know {other}"))),
    }
}

/// One connection.
pub(super) async fn serve(world: Arc<World>, mut io: End) {
    let mut buffer = BytesMut::new();
    loop {
        let cut = world.store.cut.notified();
        tokio::select! {
            biased;
            () = cut => return io.reset(true),
            read = io.read_buf(&mut buffer) => if !matches!(read, Ok(size) if size > 0) {
                return;
            },
        }
        while let Some(arguments) = taken(&mut buffer) {
            let answer = world.store.answer(&world, &arguments);
            let delay = world.store.delay.load(Ordering::Relaxed);
            if delay > 0 {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            if io.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// A whole command off the wire.
fn taken(buffer: &mut BytesMut) -> Option<Vec<String>> {
    let line = |from: usize| {
        let end = from + memchr::memmem::find(&buffer[from..], b"\r\n")?;
        Some((std::str::from_utf8(&buffer[from + 1..end]).ok()?.parse::<usize>().ok()?, end + 2))
    };
    if buffer.is_empty() {
        return None;
    }
    let (count, mut at) = line(0)?;
    let mut arguments = Vec::with_capacity(count);
    for _ in 0..count {
        if at >= buffer.len() {
            return None;
        }
        let (size, from) = line(at)?;
        arguments.push(String::from_utf8_lossy(buffer.get(from..from + size)?).into_owned());
        at = from + size + 2;
        if at > buffer.len() {
            return None;
        }
    }
    buffer.advance(at);
    Some(arguments)
}

/// What befalls it.
pub(super) async fn weather(world: Arc<World>) {
    let mut random = world.split();
    loop {
        tokio::time::sleep(random.millis(200, 3000)).await;
        if world.fault(Fault::StoreFails, &mut random) {
            world.store.set_down(true);
            tokio::time::sleep(random.millis(10, 4000)).await;
            world.store.set_down(false);
        }
        if world.fault(Fault::StoreForgets, &mut random) {
            world.store.fail_over(random.pick(&[0, -3_600_000, 3_600_000]));
        }
        let slow = world.fault(Fault::StoreSlow, &mut random);
        world.store.set_delay(if slow { random.between(1, 400) } else { 0 });
    }
}
