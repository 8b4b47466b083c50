//! Leaf certificates for intercepted hosts: made once each, signed by the CA that the mitmproxy front uses, too.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sigward_gateway::settings::ClientHttp2;
use zeroize::Zeroizing;

use super::constraints::Constraints;
use crate::tls::client_protocols;

/// Hosts whose certificates are kept.
const MOST: usize = 1000;

/// Signs for hosts, and remembers what it signed.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    constraints: Constraints,
    /// What stands behind the leaf.
    chain: Vec<CertificateDer<'static>>,
    /// One key for all leaves of a process.
    key: KeyPair,
    /// With HTTP/2, and without.
    made: [Mutex<HashMap<String, Arc<ServerConfig>>>; 2],
}

impl fmt::Debug for Authority {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads one PEM file: the CA's key and its certificate, then those up to the root that clients trust.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let wrong = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
        let pem = Zeroizing::new(crate::files::read(path).map_err(|error| wrong(&error))?);
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| wrong(&error))?;
        let key = KeyPair::try_from(&key).map_err(|error| wrong(&error))?;
        let mut chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
        let certificate = chain.first().ok_or_else(|| wrong(&"it holds no certificate"))?;
        let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(|error| wrong(&error))?;
        let constraints = Constraints::read(certificate).ok_or_else(|| wrong(&"its certificate cannot be read"))?;
        if chain.len() > 1 {
            // Clients have the root.
            chain.pop();
        }
        // Of the CA's kind, as mitmproxy's leaves are: who needs RSA needs it here, too.
        let key = KeyPair::generate_for(issuer.key().algorithm()).map_err(|error| wrong(&error))?;
        Ok(Self { issuer, constraints, chain, key, made: Default::default() })
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
        let [with, without] = &self.made;
        let mut made = if http2 == ClientHttp2::Auto { with } else { without }.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(host) {
            return Ok(Arc::clone(known));
        }
        let config = Arc::new(self.make(host, http2).map_err(|error| format!("no certificate for {host:?}: {error}"))?);
        if made.len() >= MOST {
            made.clear();
        }
        made.insert(host.to_owned(), Arc::clone(&config));
        Ok(config)
    }

    fn make(&self, host: &str, http2: ClientHttp2) -> Result<ServerConfig, Box<dyn std::error::Error>> {
        if !self.vouches_for(host) {
            // A tunnel for such a host is refused; of other connections the client only says that the handshake failed.
            tracing::warn!("clients will refuse the certificate for {host:?}: {}", super::NOT_VOUCHED);
        }
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name.remove(DnType::CommonName);
        // Clients look at the alternative names. Where none of these is a domain, OpenSSL holds the name constraints against the common
        // name, if that looks like one, as an address does; and it has 64 characters at most.
        params.distinguished_name.push(DnType::CommonName, "sigward");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let now = std::time::SystemTime::now();
        let day = std::time::Duration::from_secs(86_400);
        params.not_before = (now - 2 * day).into();
        params.not_after = (now + 90 * day).into();
        let leaf = params.signed_by(&self.key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let chain = std::iter::once(leaf.der().clone()).chain(self.chain.iter().cloned()).collect();
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        config.alpn_protocols = client_protocols(http2);
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(config)
    }
}
