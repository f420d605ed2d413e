//! TLS with libpq's meaning of each `sslmode` (PostgreSQL documentation, "SSL Support", table of modes).

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::domain::address::{PgAddress, shown};
use crate::domain::failure::{Failure, Outcome};

/// How far the server's certificate is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Any certificate: encryption against listeners only.
    Any,
    /// Signed by a known authority.
    Authority,
    /// And made for this host.
    Host,
}

/// The driver's mode and, unless TLS is off, the client's configuration.
///
/// # Errors
/// Configuration: an unknown mode, a certificate or key that cannot be read.
pub(super) fn configure(address: &PgAddress) -> Outcome<(postgres::config::SslMode, Arc<ClientConfig>)> {
    use postgres::config::SslMode;
    let mode = address.parameter("sslmode").or_else(|| address.parameter("ssl")).unwrap_or("prefer");
    let root = address.parameter("sslrootcert");
    let (mode, trust) = match mode {
        "disable" => (SslMode::Disable, Trust::Any),
        "allow" | "prefer" => (SslMode::Prefer, Trust::Any),
        // libpq: with a root certificate file `require` checks the authority, for compatibility.
        "require" | "true" if root.is_some() => (SslMode::Require, Trust::Authority),
        "require" | "true" => (SslMode::Require, Trust::Any),
        "verify-ca" => (SslMode::Require, Trust::Authority),
        "verify-full" => (SslMode::Require, Trust::Host),
        other => {
            return Err(Failure::configuration(format!("sslmode={other} is not known"))
                .hint("disable, allow, prefer, require, verify-ca or verify-full"));
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::internal(format!("TLS cannot be set up: {e}")))?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Any => Arc::new(Verifier { inner: None, provider }),
        Trust::Authority | Trust::Host => {
            let root = root.ok_or_else(|| {
                Failure::configuration("sslmode=verify-ca and verify-full need the authority's certificate")
                    .hint("add sslrootcert=FILE to the address, or set PGSSLROOTCERT")
            })?;
            let inner =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots(Path::new(root))?), provider.clone())
                    .build()
                    .map_err(|e| Failure::configuration(format!("sslrootcert {root}: {e}")))?;
            match trust {
                Trust::Host => inner,
                _ => Arc::new(Verifier { inner: Some(inner), provider }),
            }
        }
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let config = match (address.parameter("sslcert"), address.parameter("sslkey")) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(Path::new(cert))?, private_key(Path::new(key))?)
            .map_err(|e| Failure::configuration(format!("sslcert {cert}: {e}")))?,
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(Failure::configuration("sslcert and sslkey go together, and one of them is missing")),
    };
    Ok((mode, Arc::new(config)))
}

fn certificates(path: &Path) -> Outcome<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| Failure::configuration(format!("the certificate {} cannot be read: {e}", shown(path))))
}

fn private_key(path: &Path) -> Outcome<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|e| Failure::configuration(format!("the private key {} cannot be read: {e}", shown(path))))
}

fn roots(path: &Path) -> Outcome<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|e| Failure::configuration(format!("the certificate {} is unfit: {e}", shown(path))))?;
    }
    Ok(store)
}

/// Believes any certificate, or any that a known authority signed whatever host it names. The handshake's signature is
/// checked in any case: without that not even the encryption would stand.
#[derive(Debug)]
struct Verifier {
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
