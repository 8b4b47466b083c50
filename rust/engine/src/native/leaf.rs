//! Leaf certificates for intercepted hosts, for both fronts: made when a client first asks, signed by the CA, made again before they grow old.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sigward_gateway::settings::ClientHttp2;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::constraints::Constraints;
use crate::tls::client_protocols;
use crate::validity::Validity;

/// Hosts whose certificates are kept.
const MOST: usize = 1000;

const DAY: Duration = Duration::from_secs(86_400);
/// How long a leaf holds from the moment that it is made. Browsers and Apple's systems take at most 398 days, or 825 of a CA that the user
/// added; shorter is better, and nobody has to renew these by hand.
const LIFE: Duration = Duration::from_secs(90 * 86_400);
/// It is made again after two thirds of that.
const USED: Duration = Duration::from_secs(60 * 86_400);
/// It holds from so long before it was made: clients' clocks may be behind.
const BACKDATED: Duration = Duration::from_secs(2 * 86_400);

/// One host's certificate.
pub(crate) struct Leaf {
    /// The leaf, then what stands behind it; the root is missing, as clients have it.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// While the clock is in between, it is shown.
    shown: std::ops::Range<SystemTime>,
    /// With HTTP/2, and without. Tickets are of the configuration that issued them: those of an old leaf end with it.
    configs: [OnceLock<Arc<ServerConfig>>; 2],
}

struct Kept {
    leaf: Arc<Leaf>,
    /// The higher, the later it was asked for.
    used: u64,
}

#[derive(Default)]
struct Cache {
    kept: HashMap<String, Kept>,
    uses: u64,
}

/// Signs for hosts, and remembers what it signed.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    constraints: Constraints,
    /// Of the CA, up to the root.
    certificates: Vec<CertificateDer<'static>>,
    pub(crate) validity: Validity,
    /// One key for all leaves of an authority.
    key: KeyPair,
    cache: Mutex<Cache>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads one PEM file: the CA's key and its certificate, then those up to the root that clients trust. `known`: it is taken again, leaves
    /// and all, if it is still the one in the file.
    pub(crate) fn load(path: &Path, known: Option<Arc<Self>>) -> Result<Arc<Self>, String> {
        let wrong = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
        let pem = Zeroizing::new(crate::files::read(path).map_err(|error| wrong(&error))?);
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| wrong(&error))?;
        let key = KeyPair::try_from(&key).map_err(|error| wrong(&error))?;
        let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
        let certificate = certificates.first().ok_or_else(|| wrong(&"it holds no certificate"))?;
        if !belongs(&key, certificate) {
            return Err(wrong(&"its key is not its first certificate's"));
        }
        if let Some(known) = known.filter(|known| known.certificates == certificates) {
            return Ok(known);
        }
        let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(|error| wrong(&error))?;
        let unreadable = || wrong(&"its certificate cannot be read");
        let constraints = Constraints::read(certificate).ok_or_else(unreadable)?;
        let validity = Validity::of(&certificates).ok_or_else(unreadable)?;
        // Of the CA's kind: who needs RSA needs it here, too.
        let key = KeyPair::generate_for(issuer.key().algorithm()).map_err(|error| wrong(&error))?;
        Ok(Arc::new(Self { issuer, constraints, certificates, validity, key, cache: Mutex::default() }))
    }

    /// True if name constraints limit the CA.
    pub(crate) fn is_constrained(&self) -> bool {
        self.constraints.any()
    }

    /// True if clients take a certificate of the CA's for this host.
    pub(crate) fn vouches_for(&self, host: &str) -> bool {
        self.constraints.allow(host)
    }

    /// What a TLS server for this host needs.
    pub(crate) fn server(&self, host: &str, http2: ClientHttp2) -> Result<Arc<ServerConfig>, String> {
        let leaf = self.leaf(host, SystemTime::now())?;
        let [with, without] = &leaf.configs;
        let config = if http2 == ClientHttp2::Auto { with } else { without };
        if let Some(known) = config.get() {
            return Ok(Arc::clone(known));
        }
        let made = self.config(&leaf, http2).map_err(|error| unmade(host, &error))?;
        Ok(Arc::clone(config.get_or_init(|| Arc::new(made))))
    }

    /// The leaves' key, PKCS #8.
    pub(crate) fn key(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.key.serialize_der())
    }

    /// The certificate to show for this host.
    pub(crate) fn leaf(&self, host: &str, now: SystemTime) -> Result<Arc<Leaf>, String> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.uses += 1;
        let used = cache.uses;
        if let Some(kept) = cache.kept.get_mut(host)
            && kept.leaf.shown.contains(&now)
        {
            kept.used = used;
            return Ok(Arc::clone(&kept.leaf));
        }
        let leaf = Arc::new(self.make(host, now).map_err(|error| unmade(host, &*error))?);
        cache.kept.retain(|_, kept| kept.leaf.shown.contains(&now));
        if cache.kept.len() >= MOST
            && let Some(longest) = cache.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(host, _)| host.clone())
        {
            cache.kept.remove(&longest);
        }
        cache.kept.insert(host.to_owned(), Kept { leaf: Arc::clone(&leaf), used });
        Ok(leaf)
    }

    fn make(&self, host: &str, now: SystemTime) -> Result<Leaf, Box<dyn std::error::Error>> {
        if !self.vouches_for(host) {
            // A tunnel for such a host is refused; of other connections the client only says that the handshake failed.
            tracing::warn!("clients will refuse the certificate for {host:?}: {}", super::NOT_VOUCHED);
        }
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.serial_number = Some(serial()?);
        params.distinguished_name.remove(DnType::CommonName);
        // Clients look at the alternative names. Where none of these is a domain, they hold name constraints against a common name: OpenSSL
        // if it looks like a domain, GnuTLS whatever it is. So there is none.
        params.distinguished_name.push(DnType::OrganizationName, "sigward");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let end = self.validity.end();
        let before = now.checked_sub(BACKDATED).unwrap_or(UNIX_EPOCH).min(end);
        params.not_before = before.into();
        params.not_after = (now + LIFE).min(end).into();
        // One that ends with the CA lasts as long as any other could. Earlier than a day before it was made, it would soon be a certificate
        // of the future to clients whose clock is behind.
        let shown = before.checked_add(DAY).unwrap_or(before).min(now)..if now + LIFE < end { now + USED } else { now + LIFE };
        let leaf = params.signed_by(&self.key, &self.issuer)?;
        // Clients have the root. Whoever is trusted alone goes along.
        let behind = self.certificates.len().saturating_sub(1).max(1);
        let chain = std::iter::once(leaf.der().clone()).chain(self.certificates.iter().take(behind).cloned()).collect();
        Ok(Leaf { chain, shown, configs: Default::default() })
    }

    fn config(&self, leaf: &Leaf, http2: ClientHttp2) -> Result<ServerConfig, rustls::Error> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(leaf.chain.clone(), key)?;
        config.alpn_protocols = client_protocols(http2);
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(config)
    }
}

/// By itself rcgen makes it of the key, which all leaves have. Of two certificates with one number, NSS takes the first alone.
fn serial() -> Result<SerialNumber, rustls::Error> {
    let mut bytes = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes)?;
    // A positive number, of this length (RFC 5280, section 4.1.2.2).
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn unmade(host: &str, error: &dyn fmt::Display) -> String {
    format!("no certificate for {host:?}: {error}")
}

/// True if the certificate is for this key.
fn belongs(key: &KeyPair, certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| certificate.public_key().raw == key.subject_public_key_info())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rcgen::{BasicConstraints, IsCa};

    use super::*;

    const HOST: &str = "sqs.us-east-1.amazonaws.com";

    fn at(days: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000) + DAY * u32::try_from(days).unwrap()
    }

    /// RFC 7468.
    fn pem(label: &str, der: &[u8]) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = format!("-----BEGIN {label}-----\n");
        for three in der.chunks(3) {
            let bits = three.iter().chain([0, 0].iter()).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
            let letter = |place: usize| if place <= three.len() { char::from(LETTERS[bits >> (18 - 6 * place) & 63]) } else { '=' };
            text.extend((0..4).map(letter));
        }
        text + &format!("\n-----END {label}-----\n")
    }

    /// A CA of so many days, and what is in its file.
    fn file(until: u64) -> (tempfile::NamedTempFile, String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = at(0).into();
        params.not_after = at(until).into();
        let certificate = params.self_signed(&key).unwrap();
        let certificate = pem("CERTIFICATE", certificate.der());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem("PRIVATE KEY", &key.serialize_der()) + &certificate).unwrap();
        (file, certificate, key)
    }

    fn authority(until: u64) -> Arc<Authority> {
        Authority::load(file(until).0.path(), None).unwrap()
    }

    fn validity(leaf: &Leaf) -> Validity {
        Validity::of(leaf.chain.get(..1).unwrap()).unwrap()
    }

    fn serial_of(leaf: &Leaf) -> Vec<u8> {
        X509Certificate::from_der(&leaf.chain[0]).unwrap().1.raw_serial().to_vec()
    }

    fn seconds(time: SystemTime) -> u64 {
        time.duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn one_is_made_again_before_it_grows_old() {
        let authority = authority(3650);
        let first = authority.leaf(HOST, at(100)).unwrap();
        assert_eq!(validity(&first), Validity { from: seconds(at(98)), until: seconds(at(190)) });
        let same = |days| Arc::ptr_eq(&first, &authority.leaf(HOST, at(days)).unwrap());
        assert!(same(100) && same(159));
        assert!(!same(160));
        assert_ne!(serial_of(&first), serial_of(&authority.leaf(HOST, at(160)).unwrap()), "NSS refuses a number that it has seen");
        assert_eq!(validity(&authority.leaf(HOST, at(190)).unwrap()).until, seconds(at(250)));
        assert_eq!(validity(&authority.leaf(HOST, at(400)).unwrap()).until, seconds(at(490)));
    }

    #[test]
    fn one_of_the_future_is_made_again() {
        let authority = authority(3650);
        let ahead = authority.leaf(HOST, at(100)).unwrap();
        assert!(Arc::ptr_eq(&ahead, &authority.leaf(HOST, at(99)).unwrap()), "a clock that is a little behind");
        let back = authority.leaf(HOST, at(90)).unwrap();
        assert_eq!(validity(&back), Validity { from: seconds(at(88)), until: seconds(at(180)) });
    }

    #[test]
    fn none_outlives_the_ca() {
        let authority = authority(365);
        let last = authority.leaf(HOST, at(300)).unwrap();
        assert_eq!(validity(&last).until, seconds(at(365)));
        for days in [361, 364, 366, 380] {
            assert!(Arc::ptr_eq(&last, &authority.leaf(HOST, at(days)).unwrap()), "{days}: a new one would hold no longer");
        }
        let late = validity(&authority.leaf("late.amazonaws.com", at(500)).unwrap());
        assert_eq!((late.from, late.until), (seconds(at(365)), seconds(at(365))));
    }

    #[test]
    fn the_ones_that_nobody_asks_for_go_first() {
        let authority = authority(3650);
        let wanted = authority.leaf(HOST, at(100)).unwrap();
        for number in 0..MOST + 10 {
            authority.leaf(&format!("b{number}.s3.amazonaws.com"), at(100)).unwrap();
            if number % 100 == 0 {
                assert!(Arc::ptr_eq(&wanted, &authority.leaf(HOST, at(100)).unwrap()));
            }
        }
        let kept = |authority: &Authority| authority.cache.lock().unwrap().kept.len();
        assert_eq!(kept(&authority), MOST);
        assert!(!authority.cache.lock().unwrap().kept.contains_key("b0.s3.amazonaws.com"));
        authority.leaf("new.amazonaws.com", at(200)).unwrap();
        assert_eq!(kept(&authority), 1, "old ones go");
    }

    #[test]
    fn sessions_end_with_the_leaf() {
        let authority = authority(3650);
        let config = |days| {
            let leaf = authority.leaf(HOST, at(days)).unwrap();
            Arc::new(authority.config(&leaf, ClientHttp2::Auto).unwrap())
        };
        let (old, new) = (config(100), config(200));
        let ticket = old.ticketer.encrypt(b"state").unwrap();
        assert_eq!(old.ticketer.decrypt(&ticket).unwrap(), b"state");
        assert_eq!(new.ticketer.decrypt(&ticket), None);
    }

    #[test]
    fn a_file_is_taken_anew_if_it_holds_another_ca() {
        let (file, certificate, key) = file(3650);
        let first = Authority::load(file.path(), None).unwrap();
        assert!(Arc::ptr_eq(&first, &Authority::load(file.path(), Some(Arc::clone(&first))).unwrap()));
        let (other, ..) = super::tests::file(3650);
        assert!(!Arc::ptr_eq(&first, &Authority::load(other.path(), Some(Arc::clone(&first))).unwrap()));
        std::fs::write(file.path(), pem("PRIVATE KEY", &KeyPair::generate().unwrap().serialize_der()) + &certificate).unwrap();
        assert!(Authority::load(file.path(), Some(first)).unwrap_err().contains("its key is not its first certificate's"));
        std::fs::write(file.path(), pem("PRIVATE KEY", &key.serialize_der())).unwrap();
        assert!(Authority::load(file.path(), None).unwrap_err().contains("it holds no certificate"));
    }
}
