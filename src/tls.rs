//! Certificates and keys out of PEM files, for every connection that uses TLS; which server a client by HTTPS believes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};

/// Where systems keep the authorities that they trust, all in one file.
const SYSTEM: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The bundle of authorities that this system trusts: the one that is named (`SSL_CERT_FILE`), else where one is usual.
pub fn system_bundle(named: Option<&Path>) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(|| SYSTEM.iter().map(PathBuf::from).find(|p| p.exists()))
}

/// The certificates of a file, in its order; none where it holds none.
///
/// # Errors
/// Configuration: the file cannot be read.
pub fn certificates(path: &Path) -> Outcome<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| Failure::configuration(format!("the certificate {} cannot be read: {e}", shown(path))))
}

/// The private key in what was read from a file: PEM, or DER.
///
/// # Errors
/// Configuration: a key that needs a passphrase, or none.
pub fn private_key(bytes: Vec<u8>, path: &Path) -> Outcome<PrivateKeyDer<'static>> {
    let unfit = |why: &str| Failure::configuration(format!("the private key {} {why}", shown(path)));
    match PrivateKeyDer::from_pem_slice(&bytes) {
        _ if String::from_utf8_lossy(&bytes).contains("ENCRYPTED") => Err(unfit("is encrypted, which is not read")
            .hint(format!("openssl pkey -in {} -out NEW writes one without a passphrase", shown(path)))),
        Ok(key) => Ok(key),
        Err(e) => PrivateKeyDer::try_from(bytes).map_err(|_| unfit(&format!("cannot be read: {e}"))),
    }
}

/// Which servers are believed.
pub struct Belief<'a> {
    /// Any at all.
    pub any: bool,
    /// Those with a certificate of this file, or of an authority in it; a folder of such files.
    pub file: Option<&'a Path>,
    /// Without such a file: the system's own bundle, where the environment names it (`SSL_CERT_FILE`).
    pub system: Option<&'a Path>,
    /// The variable that sets the file, for hints.
    pub set_by: &'a str,
}

/// The setup of a client, with the one provider that all crates share.
///
/// # Errors
/// Internal.
pub fn builder() -> Outcome<ConfigBuilder<ClientConfig, WantsVerifier>> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::internal(format!("TLS cannot be set up: {e}")))
}

/// The setup of a client that believes these servers.
///
/// # Errors
/// Configuration: certificates that cannot be read.
pub fn believing(belief: &Belief<'_>) -> Outcome<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let builder = builder()?;
    let provider = builder.crypto_provider().clone();
    let trusted = if belief.any { None } else { Some(authorities(belief, &provider)?) };
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { trusted, provider })))
}

fn authorities(belief: &Belief<'_>, provider: &Arc<CryptoProvider>) -> Outcome<Trusted> {
    let path = match belief.file {
        Some(path) => path.to_owned(),
        None => system_bundle(belief.system).ok_or_else(|| {
            Failure::configuration("this system has no bundle of authorities where one is usual")
                .hint(format!("install the package ca-certificates, or set {}", belief.set_by))
        })?,
    };
    let found = if path.is_dir() { folder(&path)? } else { certificates(&path)? };
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(found.iter().cloned());
    if usable == 0 {
        return Err(Failure::configuration(format!("{} holds no certificate that can be used", shown(&path)))
            .hint(format!("{} names the certificate (PEM) of the server's authority", belief.set_by)));
    }
    let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
        .build()
        .map_err(|e| Failure::configuration(format!("{}: {e}", shown(&path))))?;
    // Those of the system are authorities; only a file of one's own names a server's certificate itself.
    let named = if belief.file.is_some() { found } else { Vec::new() };
    Ok(Trusted { strict, named })
}

/// Every certificate of a folder, as `c_rehash` prepares one: other files in it do not matter.
fn folder(path: &Path) -> Outcome<Vec<CertificateDer<'static>>> {
    let entries = std::fs::read_dir(path).map_err(|e| Failure::configuration(format!("{}: {e}", shown(path))))?;
    let files = entries.flatten().map(|e| e.path()).filter(|p| p.is_file());
    Ok(files.filter_map(|file| certificates(&file).ok()).flatten().collect())
}

#[derive(Debug)]
struct Trusted {
    /// The rules of WebPKI.
    strict: Arc<WebPkiServerVerifier>,
    /// Certificates that are believed by themselves: OpenSSL takes a self-signed one that is its own authority, which
    /// WebPKI does not.
    named: Vec<CertificateDer<'static>>,
}

/// Believes any certificate, or those that it trusts. The handshake's signature is checked in any case.
#[derive(Debug)]
struct Verifier {
    trusted: Option<Trusted>,
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
        let Some(trusted) = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        if trusted.named.iter().any(|c| c.as_ref() == end_entity.as_ref()) {
            in_time(end_entity, now)?;
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        trusted.strict.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn in_time(der: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let certificate = Certificate::from_der(der.as_ref())
        .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let validity = &certificate.tbs_certificate.validity;
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(rustls::Error::InvalidCertificate(CertificateError::Expired));
    }
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    Ok(())
}

/// The setup of a client of any server: the authorities of the system are believed, and those of a file or folder.
///
/// # Errors
/// Configuration: a file that cannot be read.
pub fn client(system: Option<&Path>, own: Option<&Path>) -> Outcome<ClientConfig> {
    let mut store = RootCertStore::empty();
    // Where nothing is usual, nothing is believed, and plain connections still work.
    for path in system_bundle(system).iter().map(PathBuf::as_path).chain(own) {
        store.add_parsable_certificates(if path.is_dir() { folder(path)? } else { certificates(path)? });
    }
    Ok(builder()?.with_root_certificates(store).with_no_client_auth())
}
