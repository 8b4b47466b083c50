//! via: how a request that comes round is known.
//!
//! Every request goes out with a `Via` (RFC 9110, section 7.6.3) whose pseudonym no other process has. One that comes in with it has been
//! here before, and would go round for ever. Two sigwards in a row have two names.

use http::HeaderValue;
use http::header::{HeaderMap, VIA};

use crate::refuse::Refusal;

/// This process's name in `Via`.
#[derive(Debug)]
pub struct Hop {
    pseudonym: String,
    line: HeaderValue,
}

impl Hop {
    /// `id`: a random number that no other process has.
    pub fn new(id: u64) -> Self {
        let pseudonym = format!("sigward-{id:016x}");
        // HTTP's semantics are 1.1's, whatever version the client speaks.
        let line = HeaderValue::from_str(&format!("1.1 {pseudonym}")).unwrap_or_else(|_| HeaderValue::from_static("1.1 sigward"));
        Self { pseudonym, line }
    }

    /// The value of the header that it adds.
    pub fn line(&self) -> &HeaderValue {
        &self.line
    }

    /// Adds it behind those of the hops before.
    pub(crate) fn sign_off(&self, headers: &mut HeaderMap) {
        headers.append(VIA, self.line.clone());
    }

    /// The refusal of a request, or a CONNECT, that has been here before.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let name = self.pseudonym.as_bytes();
        let named = headers.get_all(VIA).iter().any(|value| value.as_bytes().windows(name.len()).any(|window| window == name));
        if named { Err(looped()) } else { Ok(()) }
    }
}

fn looped() -> Refusal {
    Refusal::sigward(
        508,
        "loop",
        "the request has come back to the sigward that sent it: it would go round for ever.",
        "Find what sends it here again: an `upstream`, `connect` or egress.proxy with sigward's own address, DNS, or iptables.",
    )
}

/// The refusal of a tunnel, or a redirected connection, whose far end is this process.
pub fn leads_back(to: &str) -> Refusal {
    Refusal::sigward(
        508,
        "loop",
        format!("the connection to {to} leads back to this sigward: it would go round for ever."),
        "Is it a listener of sigward's? Call it directly, without a proxy. Does iptables redirect sigward's own connections? Exempt its user.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_been_here_is_known_among_all_hops() {
        let (one, other) = (Hop::new(1), Hop::new(2));
        let mut headers = HeaderMap::new();
        headers.insert(VIA, HeaderValue::from_static("1.0 fred, 1.1 p.example.net (a comment)"));
        assert!(one.check(&headers).is_ok());
        other.sign_off(&mut headers);
        assert!(one.check(&headers).is_ok());
        one.sign_off(&mut headers);
        assert_eq!(headers.get_all(VIA).iter().count(), 3);
        assert_eq!(one.check(&headers).unwrap_err().status, 508);
        // A hop may have joined them.
        let joined: Vec<&str> = headers.get_all(VIA).iter().map(|value| value.to_str().unwrap()).collect();
        let joined = HeaderValue::from_str(&joined.join(",")).unwrap();
        let headers: HeaderMap = [(VIA, joined)].into_iter().collect();
        assert!(one.check(&headers).is_err() && other.check(&headers).is_err() && Hop::new(3).check(&headers).is_ok());
    }
}
