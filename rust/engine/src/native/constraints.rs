//! A CA's name constraints: which hosts its certificates may be for (RFC 5280, section 4.2.1.10). [`leaf`](super::leaf) asks, so that
//! a client is told of a host that the CA does not vouch for, instead of breaking off the handshake.

use std::net::IpAddr;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree, NameConstraints};
use x509_parser::prelude::FromDer;

/// One subtree.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subtree {
    /// A name and all below it; lower-case, without a dot in front.
    Name(Box<str>),
    /// Address and mask.
    Addresses(Box<[u8]>, Box<[u8]>),
}

impl Subtree {
    fn of(subtree: &GeneralSubtree<'_>) -> Option<Self> {
        match subtree.base {
            GeneralName::DNSName(name) => Some(Self::Name(name.trim_start_matches('.').to_ascii_lowercase().into())),
            GeneralName::IPAddress(bytes) => {
                let (address, mask) = bytes.split_at(bytes.len() / 2);
                Some(Self::Addresses(address.into(), mask.into()))
            }
            _ => None,
        }
    }

    fn holds(&self, host: &Host<'_>) -> bool {
        match (self, host) {
            (Self::Name(name), Host::Name(host)) => {
                name.is_empty() || host.strip_suffix(&**name).is_some_and(|front| front.is_empty() || front.ends_with('.'))
            }
            (Self::Addresses(address, mask), Host::Address(host)) => {
                host.len() == address.len()
                    && host.iter().zip(address).zip(mask).all(|((host, address), mask)| host & mask == address & mask)
            }
            _ => false,
        }
    }

    /// True if it is about hosts of this form.
    fn is_about(&self, host: &Host<'_>) -> bool {
        matches!((self, host), (Self::Name(_), Host::Name(_)) | (Self::Addresses(..), Host::Address(_)))
    }
}

/// What a certificate names.
enum Host<'a> {
    Name(&'a str),
    Address(Vec<u8>),
}

/// What a CA's certificate says; without constraints, it vouches for every host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Constraints {
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
}

impl Constraints {
    /// Reads them from a certificate. `None`: it cannot be read.
    pub(super) fn read(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let Some(found) = certificate.name_constraints().ok()? else { return Some(Self::default()) };
        let NameConstraints { permitted_subtrees, excluded_subtrees } = found.value;
        let subtrees = |found: &Option<Vec<GeneralSubtree<'_>>>| found.iter().flatten().filter_map(Subtree::of).collect();
        Some(Self { permitted: subtrees(permitted_subtrees), excluded: subtrees(excluded_subtrees) })
    }

    /// True if there are any.
    pub(super) fn any(&self) -> bool {
        !self.permitted.is_empty() || !self.excluded.is_empty()
    }

    /// True if a certificate for this host will be taken: a name, or an address with brackets or without.
    pub(super) fn allow(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        let host = match bare.parse() {
            Ok(IpAddr::V4(address)) => Host::Address(address.octets().to_vec()),
            Ok(IpAddr::V6(address)) => Host::Address(address.octets().to_vec()),
            Err(_) => Host::Name(bare),
        };
        // Hosts of a form that no permitted subtree is about are not constrained.
        let mut permitted = self.permitted.iter().filter(|subtree| subtree.is_about(&host)).peekable();
        (permitted.peek().is_none() || permitted.any(|subtree| subtree.holds(&host)))
            && !self.excluded.iter().any(|subtree| subtree.holds(&host))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CidrSubnet, GeneralSubtree, IsCa, KeyPair, NameConstraints};

    use super::Constraints;

    fn certificate(permitted: Vec<GeneralSubtree>, excluded: Vec<GeneralSubtree>) -> Constraints {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        if !permitted.is_empty() || !excluded.is_empty() {
            params.name_constraints = Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded });
        }
        Constraints::read(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
    }

    fn name(name: &str) -> GeneralSubtree {
        GeneralSubtree::DnsName(name.to_owned())
    }

    #[test]
    fn names_and_all_below_them() {
        let found = certificate(vec![name("amazonaws.com"), name("one.example")], Vec::new());
        assert!(found.any());
        for host in ["amazonaws.com", "sqs.us-east-1.amazonaws.com", "SQS.us-east-1.AmazonAWS.com.", "one.example", "a.one.example"] {
            assert!(found.allow(host), "{host}");
        }
        for host in ["evil-amazonaws.com", "amazonaws.com.evil.example", "example", "two.example", ""] {
            assert!(!found.allow(host), "{host}");
        }
        assert!(found.allow("10.0.0.1"), "addresses are not constrained by names");
    }

    #[test]
    fn addresses() {
        let net = |text: &str| GeneralSubtree::IpAddress(text.parse::<CidrSubnet>().unwrap());
        let found = certificate(vec![net("127.0.0.0/8"), net("::1/128")], vec![net("127.0.0.2/32")]);
        assert_eq!(
            ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "10.0.0.1", "::2", "127.0.0.2"].map(|host| found.allow(host)),
            [true, true, true, true, false, false, false]
        );
        assert!(found.allow("any.example"), "names are not constrained by addresses");
    }

    #[test]
    fn without_any() {
        let found = certificate(Vec::new(), Vec::new());
        assert!(!found.any());
        assert!(found.allow("any.example") && found.allow("10.0.0.1"));
        assert_eq!(Constraints::read(b"no certificate"), None);
    }
}
