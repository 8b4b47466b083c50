//! Which hosts are addresses, and which of these a client must not reach through the proxy.
//!
//! A host has many spellings and one meaning: what the system's resolver takes for an address is read as one here, by the rules of the
//! WHATWG URL Standard ("host parsing"), before anything is decided on it.

use std::net::{IpAddr, Ipv4Addr};

/// The last labels of names that hosts files and resolvers give to this host itself: RFC 6761, section 6.3; nss-myhostname(8); the
/// `/etc/hosts` of Debian, Fedora, SUSE and AIX.
const LOCAL: &[&str] =
    &["localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback", "ipv6-localhost", "ipv6-loopback", "loopback"];

/// The domains that some of them put behind.
const LOCAL_DOMAINS: &[&str] = &[".localdomain", ".localdomain4", ".localdomain6"];

/// The host as an address, whatever its spelling. `host`: without brackets and without a dot at its end; `None`: it is a name. `Err`: it
/// ends in a number, so it can only be an IPv4 address, and it is none.
pub fn address_of(host: &str) -> Result<Option<IpAddr>, NoAddress> {
    if host.contains(':') {
        return host.parse().map(|address| Some(IpAddr::V6(address))).map_err(|_| NoAddress);
    }
    if !ends_in_a_number(host) {
        return Ok(None);
    }
    ipv4(host).map(|address| Some(IpAddr::V4(address))).ok_or(NoAddress)
}

/// Such a host is an address, and not one that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAddress;

/// WHATWG URL Standard, "ends in a number checker". No top-level domain is a number, so no name is lost by it.
fn ends_in_a_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())) || number(last).is_some()
}

/// WHATWG URL Standard, "IPv4 parser", which reads what `inet_aton` does: up to four numbers, of which the last fills what is left.
fn ipv4(host: &str) -> Option<Ipv4Addr> {
    let mut parts = [0_u32; 4];
    let mut count = 0;
    for part in host.split('.') {
        *parts.get_mut(count)? = number(part)?.try_into().ok()?;
        count += 1;
    }
    let (last, bytes) = parts.get(..count)?.split_last()?;
    let room = 8 * (4 - bytes.len());
    if u64::from(*last) >= 1 << room || bytes.iter().any(|byte| *byte > 255) {
        return None;
    }
    Some(Ipv4Addr::from(bytes.iter().zip([24, 16, 8]).fold(*last, |address, (byte, shift)| address | byte << shift)))
}

/// WHATWG URL Standard, "IPv4 number parser": decimal, octal behind `0`, hexadecimal behind `0x`. What is too large stays so.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [] => return None,
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        [b'0', digits @ ..] if !digits.is_empty() => (digits, 8),
        digits => (digits, 10),
    };
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        Some(number.saturating_mul(radix.into()).saturating_add(digit.into()))
    })
}

/// True for a host that a client must not reach through the proxy unless a route names it: one of this host's own names, or a forbidden
/// address. `host`: as in a [`Target`](crate::Target).
pub fn is_forbidden_host(host: &str) -> bool {
    is_localhost(host) || host.parse().is_ok_and(is_forbidden)
}

/// True for the names that this host has for itself, whatever a resolver, or a proxy on the way, would make of them. `host`: in small
/// letters, without a dot at its end.
fn is_localhost(host: &str) -> bool {
    let host = LOCAL_DOMAINS.iter().find_map(|domain| host.strip_suffix(domain)).unwrap_or(host);
    LOCAL.contains(&host) || host.ends_with(".localhost")
}

/// True for addresses that a client must not reach through the proxy unless a route names them: this host itself, its
/// link, and the places where clouds keep credentials; also inside an IPv6 address that a gateway on the way would turn into such a one.
pub fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            first == 127 || first == 0 || (first == 169 && second == 254)
        }
        IpAddr::V6(v6) => match v6.segments() {
            // The last 32 bits are an IPv4 address: IPv4-mapped (RFC 4291), IPv4-translated (RFC 7915), NAT64's well-known prefix (RFC 6052).
            [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                is_forbidden(embedded(high, low))
            }
            // IPv4-compatible (::/96), which holds :: and ::1. EC2's metadata and the EKS agent: fd00:ec2::254, fd00:ec2::23. NAT64's
            // prefixes for a network's own use (RFC 8215): only the network knows how long its prefix is, and so where the IPv4 address
            // is. 6to4 (RFC 7526) and Teredo (RFC 4380, which hides the address) are retired, and nothing of AWS's is there.
            [0, 0, 0, 0, 0, 0, _, _] | [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, _] | [0x64, 0xff9b, 1, ..] | [0x2002, ..] | [0x2001, 0, ..] => true,
            // ISATAP (RFC 5214), under any prefix.
            [first, _, _, _, 0 | 0x0200, 0x5efe, high, low] => first & 0xffc0 == 0xfe80 || is_forbidden(embedded(high, low)),
            [first, ..] => first & 0xffc0 == 0xfe80,
        },
    }
}

fn embedded(high: u16, low: u16) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_in_a_number_is_an_address() {
        for (host, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("2852039166", "169.254.169.254"),
            ("0xa9fea9fe", "169.254.169.254"),
            ("0XA9FEA9FE", "169.254.169.254"),
            ("0251.0376.0251.0376", "169.254.169.254"),
            ("025177524776", "169.254.169.254"),
            ("0xa9.0xfe.0xa9.0xfe", "169.254.169.254"),
            ("0xa9.254.0251.254", "169.254.169.254"),
            ("169.254.43518", "169.254.169.254"),
            ("169.16689662", "169.254.169.254"),
            ("0000000000251.0376.43518", "169.254.169.254"),
            ("127.1", "127.0.0.1"),
            ("127.0.1", "127.0.0.1"),
            ("0x7f.1", "127.0.0.1"),
            ("0177.0x0.0.0x01", "127.0.0.1"),
            ("0", "0.0.0.0"),
            ("0x", "0.0.0.0"),
            ("00", "0.0.0.0"),
            ("127.0x", "127.0.0.0"),
            ("4294967295", "255.255.255.255"),
            ("255.255.255.255", "255.255.255.255"),
            ("10.1.65535", "10.1.255.255"),
            ("::1", "::1"),
            ("0:0:0:0:0:0:0:1", "::1"),
            ("::ffff:7f00:1", "::ffff:127.0.0.1"),
        ] {
            assert_eq!(address_of(host), Ok(Some(expected.parse().unwrap())), "{host}");
        }
        for host in [
            "256.0.0.1",
            "1.256.1",
            "4294967296",
            "18446744073709551617",
            "99999999999999999999999",
            "0x100000000",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.65536",
            "a.1",
            "1..1",
            ".1",
            "08",
            "1.2.3.09",
            "0xg.1",
            "sqs.us-east-1.amazonaws.com.443",
            "foo.0x7",
            "+1.1",
            "1_0.1",
            ":",
            "::1%lo",
            "1:2",
            "::127.1",
        ] {
            assert_eq!(address_of(host), Err(NoAddress), "{host}");
        }
        for host in ["localhost", "a.test", "127.0.0.1.nip.io", "0xg", "1e3", "a1", "x.0y", "1.2.3.4a", "-1", "0x-1", "", "1-2"] {
            assert_eq!(address_of(host), Ok(None), "{host}");
        }
    }

    /// The oracle is the standard library's own parser, which takes the usual spelling alone.
    #[test]
    fn every_spelling_of_an_address_is_that_address() {
        let mut state = 1_u32;
        for _ in 0..2000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let address = Ipv4Addr::from(state);
            let bytes = address.octets();
            for spelling in [
                address.to_string(),
                format!("{state}"),
                format!("{state:#x}"),
                format!("0{state:o}"),
                format!("{}.{}", bytes[0], state & 0xff_ffff),
                format!("{:#X}.0{:o}.{}", bytes[0], bytes[1], state & 0xffff),
                format!("0{:o}.{:#x}.{}.00{:o}", bytes[0], bytes[1], bytes[2], bytes[3]),
            ] {
                assert_eq!(address_of(&spelling), Ok(Some(IpAddr::V4(address))), "{spelling}");
            }
        }
    }

    #[test]
    fn local_addresses_in_all_their_dresses() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "::ffff:0:a9fe:a9fe",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
            "2002:a9fe:a9fe::1",
            "2002:7f00:1::",
            "2002:0808:0808::1",
            "2001::5601:5601",
            "2001:0:4136:e378:8000:63bf:5601:5601",
            "::127.0.0.1",
            "2600:1f18::5efe:127.0.0.1",
            "2600:1f18::200:5efe:169.254.169.254",
            "fe80::5efe:10.0.0.1",
        ] {
            assert!(is_forbidden(text.parse().unwrap()), "{text}");
            assert!(is_forbidden_host(text), "{text}");
        }
        for text in [
            "10.0.0.1",
            "52.94.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "128.0.0.1",
            "2600:1f18::1",
            "fd00:ec3::254",
            "fec0::1",
            "192.168.1.1",
            "::ffff:10.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::52.94.0.1",
            "64:ff9b:2::a9fe:a9fe",
            "64:ff9b:0:1::a9fe:a9fe",
            "2001:1::1",
            "2001:db8::1",
            "2003::1",
            "2600:1f18::5efe:10.0.0.1",
        ] {
            assert!(!is_forbidden(text.parse().unwrap()), "{text}");
            assert!(!is_forbidden_host(text), "{text}");
        }
    }

    #[test]
    fn names_of_this_host_itself() {
        for name in [
            "localhost",
            "a.localhost",
            "a.b.localhost",
            "localhost.localdomain",
            "a.localhost.localdomain",
            "localhost4",
            "localhost4.localdomain4",
            "localhost6",
            "localhost6.localdomain6",
            "ip6-localhost",
            "ip6-loopback",
            "ipv6-localhost",
            "loopback",
        ] {
            assert!(is_forbidden_host(name), "{name}");
        }
        for name in
            ["localhost.test", "notlocalhost", "my-localhost.test", "localdomain", "a.localdomain", "loopback.test", "s3.amazonaws.com"]
        {
            assert!(!is_forbidden_host(name), "{name}");
        }
    }
}
