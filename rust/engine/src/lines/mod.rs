//! Logs of one line for each request, written by threads of their own: the access log and the audit log.
//!
//! A worker puts its line into memory and goes on; the writer takes all that has gathered there and writes it in one go. When the writer
//! cannot keep up, is blocked, or the disk is full, a log that [loses](Trouble::Lose) lines drops and counts them: no request waits for a
//! log. One that [keeps](Trouble::Keep) them tries again until they are written; [`LineLog::accepts`] says meanwhile that nothing more
//! should be begun that has to be told of, so what it holds is bounded by what was under way.
//!
//! A line may also be [waited for](LineLog::write) until the file has it. The writer does not gather then: it takes all that is there,
//! writes it in one go, and wakes all who wait for it. The more wait, the more lines one write is shared by.
//!
//! A file that is opened anew has a queue and a writer of its own; those before write what they have into the file that they have. So no
//! line is lost when a file is renamed and then opened anew, and a writer that is blocked holds up nobody but itself.

mod line;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use prometheus::IntCounter;
use sigward_gateway::settings::LogTo;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::Dispatch;

pub(crate) use line::{Line, request_id};

/// So many lines wait for the writer at most.
const MOST_LINES: usize = 8192;
/// And so many bytes: a path can be long.
const MOST_BYTES: usize = 8 << 20;
/// The first line waits so long for others to be written with it.
const GATHER: Duration = Duration::from_millis(10);
/// A writer that has so many lines does not wait for more.
const PLENTY: usize = 1024;
/// The end waits so long for a writer that is blocked.
const PATIENCE: Duration = Duration::from_secs(1);
/// A line is waited for at most so long; then the writer counts as blocked.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);
/// What could not be written and is kept is tried again after so long.
const AGAIN: Duration = Duration::from_millis(100);
/// A pipe takes so much without mixing it with what others write: POSIX's `PIPE_BUF`, on Linux.
const WHOLE: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct LineLog {
    /// The setting that names where it goes.
    name: &'static str,
    current: ArcSwapOption<Queue>,
    /// How it is set, and the queues that still write what they have.
    state: Mutex<(Terms, Vec<Arc<Queue>>)>,
    counts: Counts,
    /// Where it tells of trouble.
    log: Dispatch,
}

/// Where a log goes, and what becomes of lines that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) to: LogTo,
    pub(crate) trouble: Trouble,
}

/// What becomes of lines that cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// They are dropped and counted.
    Lose,
    /// They are kept until they can be.
    Keep,
}

impl Terms {
    pub(crate) const OFF: Self = Self { to: LogTo::Off, trouble: Trouble::Lose };

    pub(crate) fn losing(to: &LogTo) -> Self {
        Self { to: to.clone(), trouble: Trouble::Lose }
    }
}

/// What is counted of it.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    /// Lines.
    pub(crate) dropped: IntCounter,
    /// Writes that failed.
    pub(crate) errors: IntCounter,
}

/// What became of a line that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Yes,
    /// Not now. A log that [keeps](Trouble::Keep) its lines writes it once it can.
    Late,
    /// The log does not have it.
    NotTaken,
}

/// A log that is open and not in use yet. Dropped, it ends.
pub(crate) struct Opened {
    terms: Terms,
    queue: Option<Arc<Queue>>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
    }
}

impl LineLog {
    /// It is off. `name`: of its setting.
    pub(crate) fn new(name: &'static str, counts: Counts, log: Dispatch) -> Self {
        Self { name, current: ArcSwapOption::empty(), state: Mutex::new((Terms::OFF, Vec::new())), counts, log }
    }

    /// Opens what the setting names; nothing changes yet. `None`: it is in use already. The error names the setting.
    pub(crate) fn open(&self, terms: Terms) -> Result<Option<Opened>, String> {
        if self.state().0 == terms {
            return Ok(None);
        }
        self.opened(terms).map(Some)
    }

    fn opened(&self, terms: Terms) -> Result<Opened, String> {
        let (output, to) = match &terms.to {
            LogTo::Off => return Ok(Opened { terms, queue: None }),
            LogTo::Stderr => {
                // Rust's own takes a descriptor that is closed for one that takes everything.
                let stderr = io::stderr().as_fd().try_clone_to_owned().map_err(|error| format!("{}: stderr: {error}", self.name))?;
                (Output::new(Box::new(File::from(stderr)), true), "stderr".to_owned())
            }
            LogTo::File(path) => {
                let (file, is_pipe) = open_file(path).map_err(|error| format!("{}: {}: {error}", self.name, path.display()))?;
                (Output::at(path, file, is_pipe), path.display().to_string())
            }
        };
        let queue = self.start(output, &to, terms.trouble).map_err(|error| format!("{}: no thread for it: {error}", self.name))?;
        Ok(Opened { terms, queue: Some(queue) })
    }

    fn start(&self, output: Output, to: &str, trouble: Trouble) -> io::Result<Arc<Queue>> {
        let file = output.file.as_ref().and_then(|(file, _)| file.metadata().ok()).map(|found| identity(&found));
        let queue = Arc::new(Queue { file, ..Queue::default() });
        let writer = Writer { queue: Arc::clone(&queue), output, name: format!("{}: {to}", self.name), counts: self.counts.clone() };
        let log = self.log.clone();
        let work = move || tracing::dispatcher::with_default(&log, || writer.run(trouble));
        std::thread::Builder::new().name("sigward-lines".into()).spawn(work)?;
        Ok(queue)
    }

    /// From here on, lines go there.
    pub(crate) fn switch(&self, mut to: Opened) {
        let mut state = self.state();
        state.0 = to.terms.clone();
        let before = self.current.swap(to.queue.take());
        state.1.retain(|queue| queue.state().writer != Doing::Ended);
        state.1.extend(before.inspect(|queue| queue.close()));
    }

    /// Opens the file anew if it was renamed. The error names the setting; the old file is used on.
    pub(crate) fn reopen(&self) -> Result<(), String> {
        let terms = self.state().0.clone();
        let LogTo::File(path) = &terms.to else { return Ok(()) };
        // The same file has a writer, which may be in the middle of a line, or wait for a pipe's reader.
        let there = path.metadata().ok().map(|found| identity(&found));
        if there.is_none() || there != self.current.load().as_ref().and_then(|queue| queue.file) {
            self.switch(self.opened(terms)?);
        }
        Ok(())
    }

    /// Writes what there is. A writer that is blocked is left to itself; what one has kept, and cannot write now, is lost.
    pub(crate) fn close(&self) {
        self.switch(Opened { terms: Terms::OFF, queue: None });
        let until = Instant::now() + PATIENCE;
        let queues = std::mem::take(&mut self.state().1);
        for queue in queues {
            if queue.wait_done(until) {
                continue;
            }
            queue.abandon();
            // One that tries again and again comes to its end here; one that is blocked does not.
            if !queue.wait_done(Instant::now() + AGAIN) {
                let lost = queue.state().count as u64;
                self.counts.dropped.inc_by(lost);
                tracing::dispatcher::with_default(&self.log, || {
                    tracing::warn!("{}: whoever reads it is too slow; {lost} lines and what is being written are lost", self.name);
                });
            }
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.current.load().is_some()
    }

    /// True if lines can be written, as far as is known, and there is room for more.
    pub(crate) fn accepts(&self) -> bool {
        self.current.load().as_ref().is_none_or(|queue| queue.accepts())
    }

    /// `sure`: it was accepted before it was begun, and is taken whatever there is already.
    pub(crate) fn push(&self, line: Line, sure: bool) {
        self.put(line, if sure { Kind::Sure } else { Kind::Usual });
    }

    /// The writer waits for no others to write with it. Nobody waits for the writer.
    pub(crate) fn push_at_once(&self, line: Line) {
        self.put(line, Kind::Urgent);
    }

    fn put(&self, mut line: Line, kind: Kind) {
        line.end();
        loop {
            let queue = self.current.load();
            let Some(queue) = queue.as_ref() else { return };
            match queue.push(&line.0, kind) {
                Pushed::Taken => return,
                Pushed::Full => return self.counts.dropped.inc(),
                // Another has come for it.
                Pushed::Closed => {}
            }
        }
    }

    /// Waits until the line is written, or `until`. If it is not written, nothing may be done that it tells of.
    pub(crate) async fn write(&self, mut line: Line, until: Option<tokio::time::Instant>) -> Written {
        line.end();
        loop {
            let Some(queue) = self.current.load_full() else { return Written::Yes };
            let Some(written) = queue.push_awaited(&line.0) else {
                if queue.state().is_closed() {
                    // Another has come for it.
                    continue;
                }
                return Written::NotTaken;
            };
            let late = tokio::time::Instant::now() + WRITE_PATIENCE;
            let given_up = until.map_or(late, |until| until.min(late));
            if let Ok(written) = tokio::time::timeout_at(given_up, written).await {
                return if written.is_ok() { Written::Yes } else { Written::Late };
            }
            if given_up < late {
                // The call had no more time. That says nothing about the log.
                return Written::Late;
            }
            if !queue.failing.swap(true, Ordering::Relaxed) {
                tracing::error!("{}: could not write for {} s; refusing calls until writing works", self.name, WRITE_PATIENCE.as_secs());
            }
            return Written::Late;
        }
    }

    fn state(&self) -> MutexGuard<'_, (Terms, Vec<Arc<Queue>>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LineLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// Gives the file, and true if it is a pipe.
fn open_file(path: &Path) -> io::Result<(File, bool)> {
    let is_pipe = path.metadata().is_ok_and(|found| found.file_type().is_fifo());
    // A named pipe that is opened for writing alone waits for its reader, and fails when that one ends.
    let mut file = OpenOptions::new().append(true).read(is_pipe).create(!is_pipe).mode(0o600).open(path)?;
    end_line(&mut file, path)?;
    Ok((file, is_pipe))
}

/// A process that was killed may have left a line without its end. What comes now is no part of it.
fn end_line(file: &mut File, path: &Path) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut last = *b"\n";
    // What may not be read is left as it is; pipes and devices have no length.
    let mut read = |at| File::open(path).and_then(|reading| reading.read_exact_at(&mut last, at));
    if length.checked_sub(1).is_some_and(|at| read(at).is_ok()) && last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(())
}

/// Lines on their way to one writer. Its lock is held for as long as it takes to copy a line.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<Waiting>,
    changed: Condvar,
    /// What was written last could not be.
    failing: AtomicBool,
    /// Which file it was begun with.
    file: Option<(u64, u64)>,
}

/// A file's device and inode.
fn identity(found: &std::fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    count: usize,
    /// Whom to tell that lines are written.
    awaited: Awaited,
    /// The writer is to wait for no more lines.
    urgent: bool,
    writer: Doing,
    ending: Ending,
}

/// What the writer does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Doing {
    /// It writes, or is about to.
    #[default]
    Works,
    /// It waits for a line.
    Waits,
    /// It waits for more lines.
    Gathers,
    Ended,
}

/// How far a queue has come to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    #[default]
    No,
    /// No more lines come.
    Closed,
    /// What cannot be written now is given up.
    Abandoned,
}

impl Waiting {
    fn is_closed(&self) -> bool {
        self.ending > Ending::No
    }

    fn has_room(&self, size: usize) -> bool {
        self.count < MOST_LINES && self.lines.len() + size <= MOST_BYTES
    }

    /// The other half is for what is told all the same: that calls were refused.
    fn is_half_empty(&self) -> bool {
        self.count < MOST_LINES / 2 && self.lines.len() < MOST_BYTES / 2
    }

    /// True: the writer must be woken for it.
    fn add(&mut self, line: &[u8], urgent: bool) -> bool {
        self.lines.extend_from_slice(line);
        self.count += 1;
        self.urgent |= urgent;
        let wakes = self.writer == Doing::Waits || (urgent && self.writer == Doing::Gathers);
        if wakes {
            // Once is enough.
            self.writer = Doing::Works;
        }
        wakes || self.count == PLENTY
    }
}

/// Who waits until lines are written, by the thread that their tasks run on. Dropped, it says that they are not.
#[derive(Debug, Default)]
struct Awaited(Vec<(ThreadId, Handle, Vec<oneshot::Sender<()>>)>);

impl Awaited {
    /// Within a runtime of one thread.
    fn wait(&mut self) -> oneshot::Receiver<()> {
        let (sender, written) = oneshot::channel();
        let here = std::thread::current().id();
        match self.0.iter_mut().find(|(thread, ..)| *thread == here) {
            Some((.., waiting)) => waiting.push(sender),
            None => self.0.push((here, Handle::current(), vec![sender])),
        }
        written
    }

    /// They are written. A thread is woken once for all of its tasks: one that wakes another's task makes a system call each time.
    fn tell(&mut self) {
        for (_, runtime, waiting) in self.0.drain(..) {
            runtime.spawn(async move {
                for waits in waiting {
                    // Who waited may have gone.
                    let _ = waits.send(());
                }
            });
        }
    }

    fn give_up(&mut self) {
        self.0.clear();
    }
}

/// How a line is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Usual,
    /// Written without waiting for others.
    Urgent,
    /// Whatever there is already.
    Sure,
}

enum Pushed {
    Taken,
    Full,
    Closed,
}

impl Queue {
    fn accepts(&self) -> bool {
        !self.failing.load(Ordering::Relaxed) && self.state().is_half_empty()
    }

    fn push(&self, line: &[u8], kind: Kind) -> Pushed {
        let mut state = self.state();
        if state.is_closed() {
            return Pushed::Closed;
        }
        if !(kind == Kind::Sure || state.has_room(line.len())) {
            return Pushed::Full;
        }
        let wakes = state.add(line, kind == Kind::Urgent);
        drop(state);
        if wakes {
            self.changed.notify_all();
        }
        Pushed::Taken
    }

    /// Gives what says that the line is written; dropped, it is not. `None`: it is not taken.
    fn push_awaited(&self, line: &[u8]) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state();
        if self.failing.load(Ordering::Relaxed) || state.is_closed() || !state.is_half_empty() {
            return None;
        }
        let written = state.awaited.wait();
        let wakes = state.add(line, true);
        drop(state);
        if wakes {
            self.changed.notify_all();
        }
        Some(written)
    }

    /// Waits for lines and takes them into `batch`, which is empty, as is `awaited`. False: there will be no more.
    fn take(&self, batch: &mut Vec<u8>, awaited: &mut Awaited) -> bool {
        let mut state = self.state();
        while state.count == 0 && !state.is_closed() {
            state.writer = Doing::Waits;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.is_closed() && !state.urgent && state.count < PLENTY {
            state.writer = Doing::Gathers;
            (state, _) = self.changed.wait_timeout(state, GATHER).unwrap_or_else(PoisonError::into_inner);
        }
        if state.urgent {
            state.writer = Doing::Works;
            // Where the workers wait for this processor, they go on first: what they have is written with it.
            drop(state);
            std::thread::yield_now();
            state = self.state();
        }
        state.writer = Doing::Works;
        state.urgent = false;
        std::mem::swap(&mut state.lines, batch);
        std::mem::swap(&mut state.awaited, awaited);
        std::mem::take(&mut state.count) > 0
    }

    fn close(&self) {
        self.state().ending = Ending::Closed;
        self.changed.notify_all();
    }

    fn abandon(&self) {
        self.state().ending = Ending::Abandoned;
        self.changed.notify_all();
    }

    /// True: the writer has ended.
    fn wait_done(&self, until: Instant) -> bool {
        let mut state = self.state();
        while state.writer != Doing::Ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Before another try. False: there shall be none.
    fn wait_again(&self) -> bool {
        let until = Instant::now() + AGAIN;
        let mut state = self.state();
        while state.ending < Ending::Abandoned {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        false
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that writes.
struct Writer {
    queue: Arc<Queue>,
    output: Output,
    name: String,
    counts: Counts,
}

impl Writer {
    fn run(mut self, trouble: Trouble) {
        let (mut batch, mut awaited) = (Vec::new(), Awaited::default());
        // While writing fails: how many lines that has cost.
        let mut failing: Option<u64> = None;
        while self.queue.take(&mut batch, &mut awaited) {
            match trouble {
                Trouble::Lose => self.write_or_lose(&batch, &mut awaited, &mut failing),
                Trouble::Keep => self.write_all(&mut batch, &mut awaited),
            }
            awaited.tell();
            batch.clear();
            // What a rush took is given back.
            batch.shrink_to(1 << 20);
        }
        self.queue.state().writer = Doing::Ended;
        self.queue.changed.notify_all();
    }

    fn write_or_lose(&mut self, batch: &[u8], awaited: &mut Awaited, failing: &mut Option<u64>) {
        match self.output.write(batch) {
            Ok(()) => {
                if let Some(lost) = failing.take() {
                    tracing::warn!("{} is written again; {lost} lines are lost", self.name);
                }
            }
            Err(Lost { lines, error }) => {
                awaited.give_up();
                self.counts.errors.inc();
                self.counts.dropped.inc_by(lines);
                if failing.is_none() {
                    tracing::warn!("{}: {error}; lines are lost until it can be written again", self.name);
                }
                *failing = Some(failing.unwrap_or_default() + lines);
            }
        }
    }

    /// Tries until it is written, or given up. Nobody is kept waiting for another try: of a write that fails, all who wait for it hear.
    fn write_all(&mut self, batch: &mut Vec<u8>, awaited: &mut Awaited) {
        while let Err((written, error)) = self.output.write_all(batch) {
            // A line that was written in part goes on where it was torn.
            batch.drain(..written);
            self.counts.errors.inc();
            if !self.queue.failing.swap(true, Ordering::Relaxed) {
                tracing::error!("{}: {error}; no call is signed until it can be written again", self.name);
            }
            awaited.give_up();
            if !self.queue.wait_again() {
                let lost = count_lines(batch);
                self.counts.dropped.inc_by(lost);
                tracing::error!("{}: {error}; {lost} lines are lost", self.name);
                return;
            }
        }
        if self.queue.failing.swap(false, Ordering::Relaxed) {
            tracing::warn!("{} is written again; no line is lost", self.name);
        }
    }
}

/// Where lines go.
struct Output {
    to: Box<dyn Write + Send>,
    /// Others write there too, or read while it is written: it gets whole lines.
    is_pipe: bool,
    /// The rest of a line that was written in part. Nothing else may follow that part.
    torn: Vec<u8>,
    /// The last that was written is not the end of a line.
    is_torn: bool,
    /// Of a file: the same file again, and where it was opened.
    file: Option<(File, PathBuf)>,
}

/// So many lines could not be written, or not as a whole.
struct Lost {
    lines: u64,
    error: io::Error,
}

impl Output {
    fn new(to: Box<dyn Write + Send>, is_pipe: bool) -> Self {
        Self { to, is_pipe, torn: Vec::new(), is_torn: false, file: None }
    }

    /// A file that is deleted is made again, if it can be seen that it is.
    fn at(path: &Path, file: File, is_pipe: bool) -> Self {
        let seen = file.try_clone().ok().map(|file| (file, path.to_owned()));
        Self { file: seen, ..Self::new(Box::new(file), is_pipe) }
    }

    /// Makes the file again if it is deleted: what is written to it would vanish. Gives how many of these bytes belong to a line whose
    /// beginning has gone with it.
    fn remake(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((file, path)) = &self.file else { return Ok(0) };
        if file.metadata().is_ok_and(|found| !found.is_file() || found.nlink() > 0) {
            return Ok(0);
        }
        let (file, is_pipe) = open_file(path)?;
        let skipped = if self.is_torn { memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1) } else { 0 };
        *self = Self { torn: std::mem::take(&mut self.torn), ..Self::at(&path.clone(), file, is_pipe) };
        Ok(skipped)
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), Lost> {
        let torn = std::mem::take(&mut self.torn);
        if let Err((written, error)) = self.write_all(&torn) {
            self.torn = torn.get(written..).unwrap_or_default().to_vec();
            return Err(Lost { lines: count_lines(lines), error });
        }
        let Err((written, error)) = self.write_all(lines) else { return Ok(()) };
        let (before, after) = lines.split_at_checked(written).unwrap_or((lines, &[]));
        if before.last().is_some_and(|last| *last != b'\n') {
            let end = memchr::memchr(b'\n', after).map_or(after.len(), |end| end + 1);
            self.torn = after.get(..end).unwrap_or_default().to_vec();
        }
        // A torn line that is mended in the end is no lost one; if there is no end to it, it is.
        Err(Lost { lines: count_lines(after) - u64::from(!self.torn.is_empty()), error })
    }

    /// The error comes with how much was written.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = self.remake(bytes).map_err(|error| (0, error))?;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.to.write(if self.is_pipe { whole(rest) } else { rest }) {
                Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
                Ok(size) => {
                    written += size;
                    self.is_torn = rest.get(size.saturating_sub(1)).is_some_and(|last| *last != b'\n');
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody who has the same pipe made it so. It is waited for, as if it had blocked.
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(GATHER),
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }
}

/// As many whole lines as a pipe takes in one piece; one at least.
fn whole(lines: &[u8]) -> &[u8] {
    let fits = lines.get(..WHOLE).and_then(|first| memchr::memrchr(b'\n', first));
    let end = fits.or_else(|| memchr::memchr(b'\n', lines).filter(|_| lines.len() > WHOLE));
    end.map_or(lines, |end| lines.get(..=end).unwrap_or(lines))
}

fn count_lines(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::SystemTime;

    use http::{HeaderMap, Method};
    use serde_json::Value;
    use sigward_gateway::knowledge::Knowledge;
    use sigward_gateway::{BodySize, Disposition, Entry, Record, RequestHead, Target};

    use super::*;

    pub(crate) fn log() -> LineLog {
        let counter = |name| IntCounter::new(name, "help").unwrap();
        LineLog::new("access_log", Counts { dropped: counter("dropped"), errors: counter("errors") }, Dispatch::none())
    }

    /// A log that goes to `to`.
    pub(crate) fn log_to(to: impl Write + Send + 'static, trouble: Trouble) -> LineLog {
        let log = log();
        let queue = log.start(Output::new(Box::new(to), false), "a test", trouble).unwrap();
        log.switch(Opened { terms: Terms { to: LogTo::Stderr, trouble }, queue: Some(queue) });
        log
    }

    fn to_file(path: &Path) -> Terms {
        Terms::losing(&LogTo::File(path.to_owned()))
    }

    pub(crate) fn head(path: &str) -> RequestHead {
        let target = Target::from_url("https://sqs.us-east-1.amazonaws.com").unwrap();
        RequestHead {
            entry: Entry::Reverse,
            method: Method::POST,
            target,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: BodySize::Known(3),
            client: "127.0.0.1".into(),
            malformed: None,
        }
    }

    /// The record of a call that a route denies.
    pub(crate) fn denied() -> Record {
        let known = Knowledge::shipped().unwrap();
        let operation = known.operations().find(|(_, operation)| operation.to_string() == "dynamodb:DeleteTable").unwrap().1;
        Record {
            disposition: Disposition::Deny,
            service: Some("dynamodb".into()),
            operation: Some(Arc::clone(operation)),
            region: Some("us-east-1".into()),
            identity: Some("default".into()),
            client: Some("batch".into()),
            route: Some("no-\"deletes".into()),
            resource: Some("TableName=orders".into()),
            status: 403,
            error: Some("denied"),
            reason: Some("route no-\"deletes denies it. Ask.".into()),
            request_id: Some("sigward-1".into()),
            ..Record::default()
        }
    }

    fn tell(log: &LineLog, path: &str) {
        log.push(Line::begin(&head(path), SystemTime::now()), false);
    }

    fn paths(lines: &[u8]) -> Vec<String> {
        let parsed = lines.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice::<Value>(line).unwrap());
        parsed.map(|line| line["path"].as_str().unwrap().to_owned()).collect()
    }

    /// Tells what is written.
    pub(crate) struct Told(pub(crate) Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    pub(crate) fn next(told: &Receiver<Vec<u8>>) -> Vec<u8> {
        told.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn whatever_a_client_sends_is_one_line_of_json() {
        let mut odd: Vec<String> = (0..0x250).filter_map(char::from_u32).map(|letter| format!("/a{letter}b")).collect();
        odd.retain(|path| !path.contains(['?', '#']));
        odd.extend(["/\u{2028}\u{ffff}\u{1f600}", "/\"},{\"status\":200", "", "/\\\\\""].map(str::to_owned));
        for path in odd {
            let mut line = Line::begin(&head(&path), SystemTime::now());
            line.end();
            let text = std::str::from_utf8(&line.0).unwrap();
            assert_eq!(serde_json::from_str::<Value>(text).unwrap()["path"], path);
            assert!(!text.trim_end_matches('\n').contains(char::is_control));
        }
    }

    #[test]
    fn a_log_that_is_off_has_no_lines() {
        let log = log();
        assert!(!log.is_on());
        tell(&log, "/");
        log.reopen().unwrap();
        log.close();
    }

    /// Writes nothing until the sender is dropped.
    struct Blocked(Receiver<()>, Told);
    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_writer_costs_lines_and_holds_nobody_up() {
        let ((gate, blocked), (sender, told)) = (channel(), channel());
        let log = log_to(Blocked(blocked, Told(sender)), Trouble::Lose);
        // What the writer has taken, and as much again.
        let all = 2 * MOST_LINES + 10;
        for _ in 0..all {
            tell(&log, "/");
        }
        let dropped = log.counts.dropped.get();
        assert!(dropped >= 10, "{dropped}");
        drop(gate);
        log.close();
        let written: usize = told.iter().map(|piece| paths(&piece).len()).sum();
        assert_eq!(written + usize::try_from(dropped).unwrap(), all);
        assert_eq!(log.counts.dropped.get(), dropped);
    }

    #[test]
    fn long_lines_do_not_fill_the_memory() {
        let queue = Queue::default();
        let line = vec![b'x'; 1 << 20];
        let taken = (0..100).filter(|_| matches!(queue.push(&line, Kind::Usual), Pushed::Taken)).count();
        assert_eq!(taken, MOST_BYTES >> 20);
    }

    #[test]
    fn no_line_is_lost_when_the_file_is_renamed_and_opened_anew() {
        const EACH: usize = 5000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = log();
        log.switch(log.open(to_file(&path)).unwrap().unwrap());
        assert!(log.open(to_file(&path)).unwrap().is_none());
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let rotations = std::thread::scope(|scope| {
            let tellers: Vec<_> = (0..2)
                .map(|teller| {
                    let log = &log;
                    scope.spawn(move || {
                        for number in 0..EACH {
                            tell(log, &format!("/{teller}/{number}"));
                            // As fast as the writer, or lines are dropped, as they should be.
                            while log.current.load().as_ref().unwrap().state().count > MOST_LINES / 2 {
                                std::thread::yield_now();
                            }
                        }
                    })
                })
                .collect();
            let mut rotations = 0;
            while tellers.iter().any(|teller| !teller.is_finished()) || rotations < 3 {
                rotations += 1;
                std::fs::rename(&path, folder.path().join(format!("access.log.{rotations}"))).unwrap();
                log.reopen().unwrap();
            }
            rotations
        });
        log.close();
        let mut found = Vec::new();
        for entry in folder.path().read_dir().unwrap() {
            found.extend(paths(&std::fs::read(entry.unwrap().path()).unwrap()));
        }
        found.sort();
        let mut expected: Vec<String> = (0..2 * EACH).map(|number| format!("/{}/{}", number / EACH, number % EACH)).collect();
        expected.sort();
        assert_eq!(found, expected, "{rotations} rotations");
        assert_eq!(log.counts.dropped.get(), 0);
    }

    #[test]
    fn a_full_disk_costs_lines_and_tears_none() {
        let disk = Arc::new(Mutex::new((0, Vec::new())));
        let mut output = Output::new(Box::new(Small(Arc::clone(&disk))), false);
        let mut write = |room, lines: &str| {
            disk.lock().unwrap().0 = room;
            let lost = output.write(lines.as_bytes()).map_err(|lost| lost.lines);
            (lost, std::mem::take(&mut disk.lock().unwrap().1))
        };
        assert_eq!(write(0, "one\ntwo\n"), (Err(2), b"".to_vec()));
        // `two` is torn, and goes on where it was torn.
        assert_eq!(write(5, "one\ntwo\nthree\n"), (Err(1), b"one\nt".to_vec()));
        assert_eq!(write(1, "four\n"), (Err(1), b"w".to_vec()));
        assert_eq!(write(99, "five\n"), (Ok(()), b"o\nfive\n".to_vec()));
        assert_eq!(write(5, "five\nsix\n"), (Err(1), b"five\n".to_vec()));
    }

    #[test]
    fn errors_are_counted_and_the_log_goes_on() {
        let log = log();
        log.switch(log.open(to_file(Path::new("/dev/full"))).unwrap().unwrap());
        tell(&log, "/");
        tell(&log, "/");
        log.close();
        assert_eq!(log.counts.dropped.get(), 2);
        assert!(log.counts.errors.get() >= 1);
    }

    #[test]
    fn an_error_names_the_setting_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let log = log();
        let error = log.open(to_file(folder.path())).err().unwrap();
        assert!(error.starts_with("access_log: ") && error.contains(&folder.path().display().to_string()), "{error}");
        assert!(!log.is_on());
        let path = folder.path().join("gone").join("access.log");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        log.switch(log.open(to_file(&path)).unwrap().unwrap());
        std::fs::rename(path.parent().unwrap(), folder.path().join("renamed")).unwrap();
        assert!(log.reopen().unwrap_err().starts_with("access_log: "));
        tell(&log, "/goes-on");
        log.close();
        assert_eq!(paths(&std::fs::read(folder.path().join("renamed/access.log")).unwrap()), ["/goes-on"]);
    }

    #[test]
    fn a_pipe_gets_whole_lines() {
        let lines = [vec![b'a'; 3000], vec![b'b'; 3000], vec![b'c'; 9000], vec![b'd'; 10]].map(|mut line| {
            line.push(b'\n');
            line
        });
        let all = lines.concat();
        let mut rest = all.as_slice();
        for size in [3001, 3001, 9001, 11] {
            assert_eq!(whole(rest).len(), size);
            rest = &rest[size..];
        }
        assert_eq!(whole(b"a\nb\n"), b"a\nb\n");
        assert_eq!(whole(b"the rest of one"), b"the rest of one");
    }

    /// Takes so many bytes; then it fails until it has room again.
    struct Small(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let size = bytes.len().min(disk.0);
            if size == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            disk.0 -= size;
            disk.1.extend_from_slice(bytes.get(..size).unwrap());
            Ok(size)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_keeps_its_lines_loses_none_on_a_full_disk() {
        let disk = Arc::new(Mutex::new((700, Vec::new())));
        let log = log_to(Small(Arc::clone(&disk)), Trouble::Keep);
        let mut told = 0;
        while log.accepts() {
            tell(&log, &format!("/{told}"));
            told += 1;
        }
        assert!(log.counts.errors.get() > 0 || told >= MOST_LINES);
        // What was accepted before is taken still.
        log.push(Line::begin(&head("/sure"), SystemTime::now()), true);
        disk.lock().unwrap().0 = usize::MAX;
        while !log.accepts() {
            std::thread::yield_now();
        }
        log.close();
        let mut expected: Vec<String> = (0..told).map(|number| format!("/{number}")).collect();
        expected.push("/sure".into());
        assert_eq!(paths(&disk.lock().unwrap().1), expected);
        assert_eq!(log.counts.dropped.get(), 0);
    }

    fn line(path: &str) -> Line {
        Line::begin(&head(path), SystemTime::now())
    }

    #[tokio::test]
    async fn a_line_that_is_waited_for_is_written_then_and_many_share_a_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let log = log();
        log.switch(log.open(Terms { trouble: Trouble::Keep, ..to_file(&path) }).unwrap().unwrap());
        for number in 0..20 {
            assert_eq!(log.write(line(&format!("/{number}")), None).await, Written::Yes);
            assert_eq!(paths(&std::fs::read(&path).unwrap()).len(), number + 1);
        }

        let ((gate, blocked), (sender, told)) = (channel(), channel());
        let log = log_to(Blocked(blocked, Told(sender)), Trouble::Keep);
        let all = futures_util::future::join_all((0..500).map(|number| log.write(line(&format!("/{number}")), None)));
        // Each is on its way before the first is written.
        let (written, ()) = tokio::join!(all, async { drop(gate) });
        assert_eq!(written, [Written::Yes; 500]);
        log.close();
        let pieces: Vec<_> = told.try_iter().collect();
        assert_eq!(pieces.iter().map(|piece| paths(piece).len()).sum::<usize>(), 500);
        assert!(pieces.len() <= 2, "what came before the first is written goes with it or after it, at once");
    }

    #[tokio::test]
    async fn a_line_that_is_waited_for_and_cannot_be_written_is_said_not_to_be() {
        let disk = Arc::new(Mutex::new((20, Vec::new())));
        let log = log_to(Small(Arc::clone(&disk)), Trouble::Keep);
        assert_eq!(log.write(line("/torn"), None).await, Written::Late, "a part of it is there");
        assert_eq!((log.accepts(), log.write(line("/not-taken"), None).await), (false, Written::NotTaken));
        disk.lock().unwrap().0 = usize::MAX;
        while !log.accepts() {
            std::thread::yield_now();
        }
        assert_eq!(log.write(line("/after"), None).await, Written::Yes);
        assert_eq!(paths(&disk.lock().unwrap().1), ["/torn", "/after"]);
        assert_eq!(log_to(Small(Arc::clone(&disk)), Trouble::Lose).write(line("/lost-if-not-written"), None).await, Written::Yes);
        disk.lock().unwrap().0 = 0;
        assert_eq!(log_to(Small(Arc::clone(&disk)), Trouble::Lose).write(line("/lost"), None).await, Written::Late);
        let off = super::tests::log();
        assert_eq!(off.write(line("/"), None).await, Written::Yes, "what is off holds nothing back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_writer_is_waited_for_once_and_not_for_ever() {
        let ((gate, blocked), (sender, told)) = (channel(), channel());
        let log = log_to(Blocked(blocked, Told(sender)), Trouble::Keep);
        let began = tokio::time::Instant::now();
        assert_eq!(log.write(line("/late"), None).await, Written::Late);
        assert_eq!((log.accepts(), log.write(line("/not-taken"), None).await), (false, Written::NotTaken));
        assert_eq!(began.elapsed().as_secs(), WRITE_PATIENCE.as_secs());
        drop(gate);
        assert_eq!(paths(&next(&told)), ["/late"]);
        while !log.accepts() {
            std::thread::yield_now();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_time_does_not_wait_for_the_log_and_proves_nothing_about_it() {
        let ((gate, blocked), (sender, _told)) = (channel(), channel());
        let log = log_to(Blocked(blocked, Told(sender)), Trouble::Keep);
        let began = tokio::time::Instant::now();
        let until = began + Duration::from_millis(100);
        assert_eq!(log.write(line("/hurried"), Some(until)).await, Written::Late);
        assert_eq!(tokio::time::Instant::now(), until);
        assert!(log.accepts());
        drop(gate);
    }

    #[test]
    fn the_same_file_keeps_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = log();
        log.switch(log.open(to_file(&path)).unwrap().unwrap());
        let writer = || Arc::as_ptr(log.current.load().as_ref().unwrap());
        let first = writer();
        log.reopen().unwrap();
        assert_eq!(writer(), first, "it may be in the middle of a line");
        std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
        log.reopen().unwrap();
        assert_ne!(writer(), first);
    }

    #[test]
    fn a_file_that_is_deleted_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs").join("audit.log");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let (file, is_pipe) = open_file(&path).unwrap();
        let mut output = Output::at(&path, file, is_pipe);
        let mut write = |lines: &[u8]| output.write_all(lines).map_err(|(written, _)| written);
        assert_eq!(write(b"one\ntw"), Ok(()));
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(write(b"o\nthree\n"), Err(0), "its folder has gone, too");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        assert_eq!(write(b"o\nthree\n"), Ok(()));
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n", "no rest of a line without its beginning");
        assert_eq!(write(b"four\n"), Ok(()));
        assert_eq!(std::fs::read(&path).unwrap(), b"three\nfour\n");
    }

    #[test]
    fn a_line_without_its_end_that_is_there_already_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        for (before, after) in [("", ""), ("one\n", "one\n"), ("one\ntw", "one\ntw\n"), ("t", "t\n")] {
            std::fs::write(&path, before).unwrap();
            open_file(&path).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
    }

    #[test]
    fn what_waits_for_a_blocked_writer_at_the_end_is_counted_as_lost() {
        struct Blocked(Sender<()>, Receiver<()>);
        impl Write for Blocked {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.send(());
                // Until the sender is dropped.
                let _ = self.1.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let ((begun, begins), (_gate, blocked)) = (channel(), channel());
        let log = log_to(Blocked(begun, blocked), Trouble::Keep);
        tell(&log, "/being-written");
        begins.recv_timeout(Duration::from_secs(60)).unwrap();
        tell(&log, "/waits");
        tell(&log, "/waits");
        log.close();
        assert_eq!(log.counts.dropped.get(), 2);
    }

    #[test]
    fn what_is_kept_to_the_end_is_counted_as_lost() {
        let disk = Arc::new(Mutex::new((0, Vec::new())));
        let log = log_to(Small(Arc::clone(&disk)), Trouble::Keep);
        for _ in 0..3 {
            tell(&log, "/");
        }
        log.close();
        assert_eq!((log.counts.dropped.get(), log.is_on()), (3, false));
    }
}
