//! Whom sigward trusts upstream: the system's roots, and the files that the settings name. Verification is never off.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sigward_gateway::settings::{ClientHttp2, EngineSettings, TlsSettings};

use crate::files;
use crate::validity::Validity;

/// A file of CAs: the system's own is a quarter of a MiB.
const MOST_CAS: u64 = 64 << 20;

/// What clients may agree on by ALPN, the best first.
pub(crate) fn client_protocols(http2: ClientHttp2) -> Vec<Vec<u8>> {
    let all: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];
    all.iter().skip(usize::from(http2 == ClientHttp2::Never)).map(|protocol| protocol.to_vec()).collect()
}

/// What reverse listeners show to TLS clients, if a certificate is given. The error names the file and the mend.
pub(crate) fn server_config(settings: &EngineSettings) -> Result<Option<(Arc<ServerConfig>, Validity)>, String> {
    let (certificate, key) = match (&settings.tls.certificate, &settings.tls.key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => return Err("tls.certificate, tls.key: both are needed, or neither".into()),
    };
    let wrong =
        |name: &str, path: &Path, why: &dyn fmt::Display| format!("tls.{name}: {}: {why}; a readable PEM file is expected", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong("certificate", certificate, &error))?;
    let validity = Validity::of(&chain).ok_or_else(|| wrong("certificate", certificate, &"it holds none, or none that can be read"))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("key", key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("tls: {error}"))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| wrong("certificate", certificate, &error))?;
    config.alpn_protocols = client_protocols(settings.client_http2);
    Ok(Some((Arc::new(config), validity)))
}

/// Builds the client's TLS. The error names the file and the mend.
pub(crate) fn client_config(settings: &TlsSettings) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    if settings.system_roots {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("system roots: {error}");
        }
        roots.add_parsable_certificates(found.certs);
    }
    for path in &settings.ca_files {
        let said = |why: &dyn std::fmt::Display| {
            format!("tls.ca_files: {}: {why}; a readable PEM file with certificates is expected", path.display())
        };
        let pem = files::read(path, MOST_CAS).map_err(|error| said(&error))?;
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| said(&error))?;
        if certificates.is_empty() {
            return Err(said(&"it holds no certificate"));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| said(&error))?;
        }
    }
    if roots.is_empty() {
        return Err("tls: nobody is trusted: system_roots is false or found none, and ca_files is empty; name a CA file".into());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("tls: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
