//! W3C trace context: what a client says of the trace that its request is part of, and what goes on upstream.
//! See "Trace Context", W3C Recommendation, sections 3.2 and 3.3.

use http::{HeaderMap, HeaderValue};
use sigward_gateway::exchange::Onward;

pub(super) const TRACEPARENT: &str = "traceparent";
pub(super) const TRACESTATE: &str = "tracestate";

/// A collector need not take longer ones (section 3.3.1.5).
const LONGEST_STATE: usize = 512;

/// Where a request stands in its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace: [u8; 16],
    /// Of the client's span.
    pub(super) parent: Option<[u8; 8]>,
    pub(super) sampled: bool,
    /// As the client sent it.
    pub(super) state: String,
}

impl Context {
    /// What the client says, if that can be read.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let text = values.next()?.to_str().ok()?;
        // Two say nothing.
        if values.next().is_some() {
            return None;
        }
        let (trace, parent, flags) = parsed(text)?;
        let states: Vec<&str> = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let state = Some(states.join(",")).filter(|state| state.len() <= LONGEST_STATE).unwrap_or_default();
        Some(Self { trace, parent: Some(parent), sampled: flags & 1 != 0, state })
    }

    /// What the upstream is told: `span` is its parent.
    pub(super) fn onward(&self, span: [u8; 8]) -> Option<Onward> {
        let text = format!("00-{}-{}-0{}", hex(&self.trace), hex(&span), u8::from(self.sampled));
        // The state belongs to the parent that was read.
        Some(Onward { parent: HeaderValue::try_from(text).ok()?, keeps_state: self.parent.is_some() })
    }
}

fn parsed(text: &str) -> Option<([u8; 16], [u8; 8], u8)> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let [version] = unhex(version)?;
    // A later version may have more at the end, and this one may not.
    if version == 0xff || (version == 0 && parts.next().is_some()) {
        return None;
    }
    let (trace, parent, [flags]) = (unhex(trace)?, unhex(parent)?, unhex(flags)?);
    (trace != [0; 16] && parent != [0; 8]).then_some((trace, parent, flags))
}

/// Lower case alone, as it is written.
fn unhex<const SIZE: usize>(text: &str) -> Option<[u8; SIZE]> {
    let value = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2).map(|pair| Some(value(pair.first()?)? << 4 | value(pair.get(1)?)?));
    pairs.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0'));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn appended(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_parent_is_read_and_told_on() {
        let context = Context::of(&appended(&[(TRACEPARENT, PARENT), (TRACESTATE, "a=1"), (TRACESTATE, "b=2")])).unwrap();
        assert_eq!((context.sampled, context.state.as_str()), (true, "a=1,b=2"));
        assert_eq!(hex(&context.parent.unwrap()), "00f067aa0ba902b7");
        let onward = context.onward([0x0a; 8]).unwrap();
        assert_eq!(onward.parent, "00-4bf92f3577b34da6a3ce929d0e0e4736-0a0a0a0a0a0a0a0a-01");
        assert!(onward.keeps_state);
        let unsampled = Context::of(&headers(&[(TRACEPARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02")])).unwrap();
        assert!(!unsampled.sampled);
        assert!(unsampled.onward([1; 8]).unwrap().parent.as_bytes().ends_with(b"-00"));
    }

    #[test]
    fn a_later_version_may_have_more() {
        assert!(Context::of(&headers(&[(TRACEPARENT, "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what")])).is_some());
    }

    #[test]
    fn what_is_malformed_is_no_parent() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert_eq!(Context::of(&appended(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)])), None);
    }
}
