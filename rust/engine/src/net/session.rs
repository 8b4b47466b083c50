//! TLS on bytes in memory: records in, plain text out, and the other way round.
//!
//! rustls's unbuffered interface: the buffers are ours, so that a read takes as much as the socket has (rustls's own take 4 KiB),
//! and a message's records leave in one write.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig};

/// A buffer whose bytes are all initialised, and of which a part is filled.
#[derive(Default)]
pub(crate) struct Window {
    bytes: Vec<u8>,
    filled: Range<usize>,
}

impl Window {
    pub(crate) fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    pub(crate) fn filled(&self) -> &[u8] {
        self.bytes.get(self.filled.clone()).unwrap_or_default()
    }

    fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.filled.clone()).unwrap_or_default()
    }

    /// Room for at least `size` bytes behind what is filled.
    pub(crate) fn room(&mut self, size: usize) -> &mut [u8] {
        if self.filled.is_empty() {
            self.filled = 0..0;
        }
        if self.bytes.len() - self.filled.end < size {
            self.bytes.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
            let needed = self.filled.end + size;
            if self.bytes.len() < needed {
                self.bytes.resize(needed, 0);
            }
        }
        self.bytes.get_mut(self.filled.end..).unwrap_or_default()
    }

    /// So many bytes of the room hold something now.
    pub(crate) fn fill(&mut self, size: usize) {
        self.filled.end = (self.filled.end + size).min(self.bytes.len());
    }

    /// So many bytes at the front are done with.
    pub(crate) fn consume(&mut self, size: usize) {
        self.filled.start = (self.filled.start + size).min(self.filled.end);
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        if let Some(room) = self.room(bytes.len()).get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
            self.fill(bytes.len());
        }
    }

    /// Keeps no more than so many bytes for nothing.
    pub(crate) fn rest(&mut self, most: usize) {
        if self.is_empty() && self.bytes.len() > most {
            *self = Self::default();
        }
    }
}

enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// One TLS connection.
pub(crate) struct Session {
    side: Side,
    /// Records that were read.
    pub(crate) incoming: Window,
    /// Records that are to be written.
    pub(crate) outgoing: Window,
    /// The handshake is over.
    pub(crate) established: bool,
    /// The peer has said that it sends no more.
    pub(crate) peer_closed: bool,
}

/// A record's header, tag and padding, at most.
const OVERHEAD: usize = 64;
/// Plain text of one record, at most.
const RECORD: usize = 16 << 10;
/// Types of records (RFC 8446, section 5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE_RECORD: u8 = 22;
/// A `ServerHello` with its certificates, and the like.
const HANDSHAKE: usize = 8 << 10;

impl Session {
    pub(crate) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        Ok(Self::of(Side::Client(Box::new(UnbufferedClientConnection::new(config, name)?))))
    }

    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self::of(Side::Server(Box::new(UnbufferedServerConnection::new(config)?))))
    }

    fn of(side: Side) -> Self {
        Self { side, incoming: Window::default(), outgoing: Window::default(), established: false, peer_closed: false }
    }

    /// What was agreed on by ALPN.
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        match &self.side {
            Side::Client(connection) => connection.alpn_protocol(),
            Side::Server(connection) => connection.alpn_protocol(),
        }
    }

    /// Opens what was read; plain text is added to `plain`, what the protocol has to answer to `outgoing`.
    pub(crate) fn open(&mut self, plain: &mut BytesMut) -> Result<(), rustls::Error> {
        self.turn(plain, Sending::Nothing)
    }

    /// Seals `data`; its records are added to `outgoing`. `plain`: as for `open`.
    pub(crate) fn seal(&mut self, data: &[u8], plain: &mut BytesMut) -> Result<(), rustls::Error> {
        self.turn(plain, Sending::Data(data))
    }

    /// Says that no more comes.
    pub(crate) fn close(&mut self) {
        let _ = self.turn(&mut BytesMut::new(), Sending::Close);
    }

    fn turn(&mut self, plain: &mut BytesMut, sending: Sending<'_>) -> Result<(), rustls::Error> {
        let Self { side, incoming, outgoing, established, peer_closed } = self;
        let mut turn = Turn { plain, outgoing, established, peer_closed, sending };
        match side {
            Side::Client(connection) => turn.all(&mut **connection, incoming),
            Side::Server(connection) => turn.all(&mut **connection, incoming),
        }
    }
}

#[derive(Clone, Copy)]
enum Sending<'a> {
    Nothing,
    Data(&'a [u8]),
    Close,
}

/// One go through the states of a connection.
struct Turn<'a> {
    plain: &'a mut BytesMut,
    outgoing: &'a mut Window,
    established: &'a mut bool,
    peer_closed: &'a mut bool,
    sending: Sending<'a>,
}

/// Both sides' connections, which are two types without a trait of their own.
trait Connection {
    type Data;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Connection for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

impl Connection for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

impl Turn<'_> {
    /// Goes on until nothing more can be done with what was read.
    fn all<C: Connection>(&mut self, connection: &mut C, incoming: &mut Window) -> Result<(), rustls::Error> {
        loop {
            let UnbufferedStatus { discard, state } = connection.process(incoming.filled_mut());
            let done = state.and_then(|state| self.one(state));
            incoming.consume(discard);
            match done {
                Ok(false) => {}
                Ok(true) => return Ok(()),
                Err(error) => {
                    self.alert(connection, incoming);
                    return Err(error);
                }
            }
        }
    }

    /// What the protocol has to say of an error, such as an alert (RFC 8446, section 6.2).
    fn alert<C: Connection>(&mut self, connection: &mut C, incoming: &mut Window) {
        loop {
            let before = self.outgoing.filled().len();
            let UnbufferedStatus { discard, state } = connection.process(incoming.filled_mut());
            if let Ok(state @ ConnectionState::EncodeTlsData(_)) = state {
                let _ = self.one(state);
            }
            incoming.consume(discard);
            // Behind it comes nothing; whoever asks for more is told of the error once again.
            if self.outgoing.filled().get(before).is_none_or(|kind| !matches!(*kind, HANDSHAKE_RECORD | CHANGE_CIPHER_SPEC)) {
                return;
            }
        }
    }

    /// True: that was all.
    fn one<D>(&mut self, state: ConnectionState<'_, '_, D>) -> Result<bool, rustls::Error> {
        match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    self.plain.extend_from_slice(record?.payload);
                }
                Ok(false)
            }
            ConnectionState::EncodeTlsData(mut data) => {
                written(self.outgoing, HANDSHAKE, |room| match data.encode(room) {
                    Ok(size) => Ok(Ok(size)),
                    Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => Ok(Err(required_size)),
                    Err(error) => Err(rustls::Error::General(error.to_string())),
                })?;
                Ok(false)
            }
            // Whatever stands in `outgoing` leaves in its order.
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                Ok(false)
            }
            ConnectionState::WriteTraffic(mut traffic) => {
                *self.established = true;
                match std::mem::replace(&mut self.sending, Sending::Nothing) {
                    Sending::Nothing => {}
                    Sending::Data(data) => {
                        let size = data.len() + OVERHEAD * (2 + data.len() / RECORD);
                        written(self.outgoing, size, |room| {
                            traffic.encrypt(data, room).map_or_else(|error| larger(&error), |size| Ok(Ok(size)))
                        })?;
                    }
                    Sending::Close => written(self.outgoing, OVERHEAD, |room| {
                        traffic.queue_close_notify(room).map_or_else(|error| larger(&error), |size| Ok(Ok(size)))
                    })?,
                }
                Ok(true)
            }
            ConnectionState::PeerClosed => {
                *self.peer_closed = true;
                Ok(false)
            }
            ConnectionState::Closed => {
                *self.peer_closed = true;
                Ok(true)
            }
            // Early data is not offered, nor taken.
            _ => Ok(true),
        }
    }
}

/// Writes to the room of a window, and once more with a larger one if it is told how large.
fn written(
    window: &mut Window,
    size: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<Result<usize, usize>, rustls::Error>,
) -> Result<(), rustls::Error> {
    let size = match write(window.room(size))? {
        Ok(size) => size,
        Err(needed) => write(window.room(needed))?.unwrap_or_default(),
    };
    window.fill(size);
    Ok(())
}

/// How large a room is needed.
fn larger(error: &EncryptError) -> Result<Result<usize, usize>, rustls::Error> {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Ok(Err(*required_size)),
        EncryptError::EncryptExhausted => Err(rustls::Error::EncryptError),
    }
}

/// What a caller of sockets understands.
pub(crate) fn as_io(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
