//! TLS with libpq's meaning of each `sslmode` (PostgreSQL documentation, "SSL Support"). It is stricter in one thing:
//! a file that is named and does not exist is an error in every mode, where libpq goes on without it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postgres::config::{SslMode, SslNegotiation};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};

use super::certificate;
use crate::domain::address::{PgAddress, shown};
use crate::domain::failure::{Failure, Outcome};
use crate::tls;

/// How connections of one address use TLS.
pub(super) struct Tls {
    /// What is tried one after the other on a TCP connection, until the server takes one.
    pub(super) modes: &'static [SslMode],
    /// How TLS begins.
    pub(super) negotiation: SslNegotiation,
    /// What is believed, and who this is.
    pub(super) client: ClientConfig,
}

/// What the address asks for.
///
/// # Errors
/// Configuration: an unknown mode, a certificate or key that cannot be read.
pub(super) fn configure(address: &PgAddress) -> Outcome<Tls> {
    let system = address.parameter("sslrootcert") == Some("system");
    let mode = address.parameter("sslmode").unwrap_or(if system { "verify-full" } else { "prefer" });
    let modes: &'static [SslMode] = match mode {
        "disable" => &[SslMode::Disable],
        "allow" => &[SslMode::Disable, SslMode::Require],
        "prefer" => &[SslMode::Prefer, SslMode::Disable],
        "require" | "verify-ca" | "verify-full" => &[SslMode::Require],
        other => {
            return Err(Failure::configuration(format!("sslmode={other} is not known"))
                .hint("disable, allow, prefer, require, verify-ca or verify-full"));
        }
    };
    if system && mode != "verify-full" {
        return Err(Failure::configuration(format!(
            "sslrootcert=system means nothing with sslmode={mode}: anyone can have a certificate of a public authority"
        ))
        .hint("sslmode=verify-full"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(address)?)
        .map_err(|e| Failure::internal(format!("TLS cannot be set up: {e}")))?;
    // A folder of sockets needs no files, and without TLS none is looked at.
    let remote = address.hosts.iter().any(|(host, _)| !host.starts_with('/'));
    let used = remote && mode != "disable";
    let chain = if used { chain(address, mode, &provider)? } else { None };
    let verifier = Verifier { chain, host: mode == "verify-full", provider: provider.clone() };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut client = match address.parameter("sslcert") {
        Some(cert) if used && address.parameter("sslcertmode") != Some("disable") => {
            let key = client_key(address, Path::new(cert), &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
        _ => builder.with_no_client_auth(),
    };
    client.enable_sni = address.parameter("sslsni") != Some("0");
    let negotiation = match address.parameter("sslnegotiation").unwrap_or("postgres") {
        "postgres" => SslNegotiation::Postgres,
        "direct" if modes == [SslMode::Require] => {
            client.alpn_protocols = vec![b"postgresql".to_vec()];
            SslNegotiation::Direct
        }
        "direct" => {
            return Err(Failure::configuration(format!("sslnegotiation=direct and sslmode={mode} exclude each other"))
                .hint("sslmode=require, verify-ca or verify-full"));
        }
        other => {
            return Err(
                Failure::configuration(format!("sslnegotiation={other} is not known")).hint("postgres or direct")
            );
        }
    };
    Ok(Tls { modes, negotiation, client })
}

/// The versions of TLS between the two limits.
fn versions(address: &PgAddress) -> Outcome<Vec<&'static SupportedProtocolVersion>> {
    let limit = |name: &str, default: usize| match address.parameter(name).filter(|v| !v.is_empty()) {
        None => Ok(default),
        Some(text) => ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]
            .iter()
            .position(|v| v.eq_ignore_ascii_case(text))
            .ok_or_else(|| Failure::configuration(format!("{name}={text} is not known")).hint("TLSv1.2 or TLSv1.3")),
    };
    let (least, most) = (limit("ssl_min_protocol_version", 2)?, limit("ssl_max_protocol_version", 3)?);
    let versions: Vec<_> =
        [(2, &TLS12), (3, &TLS13)].into_iter().filter(|(n, _)| (least..=most).contains(n)).map(|(_, v)| v).collect();
    if versions.is_empty() {
        return Err(Failure::configuration("no version of TLS is left between the two limits")
            .hint("TLS 1.2 and 1.3 are spoken; those before are broken"));
    }
    Ok(versions)
}

/// The authorities that have to vouch for the server, where any have to.
fn chain(address: &PgAddress, mode: &str, provider: &Arc<CryptoProvider>) -> Outcome<Option<Chain>> {
    let path = match address.parameter("sslrootcert") {
        Some("system") => system_roots(address)?,
        Some(path) => PathBuf::from(path),
        None if mode.starts_with("verify") => {
            return Err(Failure::configuration("sslmode=verify-ca and verify-full need the authority's certificate")
                .hint("add sslrootcert=FILE to the address, set PGSSLROOTCERT, or put it in ~/.postgresql/root.crt"));
        }
        None => return Ok(None),
    };
    let authorities = tls::certificates(&path)?;
    let mut store = RootCertStore::empty();
    let (_, unfit) = store.add_parsable_certificates(authorities.iter().cloned());
    let old = || authorities.iter().any(|a| certificate::parse(a).is_some_and(|c| certificate::is_old(&c)));
    if store.is_empty() && !old() {
        let what = if unfit > 0 { "holds no certificate that can be used" } else { "holds no certificate" };
        return Err(Failure::configuration(format!("sslrootcert {} {what}", shown(&path))));
    }
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store.clone()), provider.clone());
    let revoked = address.parameter("sslcrl").filter(|f| !f.is_empty()).map(Path::new);
    if let Some(file) = revoked {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_file_iter(file).and_then(Iterator::collect);
        let unread = |e: &dyn std::fmt::Display| Failure::configuration(format!("sslcrl {}: {e}", shown(file)));
        let lists = lists.map_err(|e| unread(&e))?;
        if lists.is_empty() {
            return Err(unread(&"it holds no list of revoked certificates"));
        }
        builder = builder.with_crls(lists);
    }
    let strict = if store.is_empty() {
        None
    } else {
        Some(builder.build().map_err(|e| Failure::configuration(format!("sslrootcert {}: {e}", shown(&path))))?)
    };
    // A list of revoked certificates is only read by the strict rules.
    Ok(Some(Chain { strict, authorities: if revoked.is_some() { Vec::new() } else { authorities } }))
}

fn system_roots(address: &PgAddress) -> Outcome<PathBuf> {
    tls::system_bundle(address.system_roots.as_deref()).ok_or_else(|| {
        Failure::configuration("sslrootcert=system: this system has no bundle of authorities where one is usual")
            .hint("install the package ca-certificates, or set SSL_CERT_FILE")
    })
}

fn client_key(address: &PgAddress, cert: &Path, provider: &CryptoProvider) -> Outcome<CertifiedKey> {
    let key = address
        .parameter("sslkey")
        .ok_or_else(|| Failure::configuration(format!("sslcert {} has no sslkey to go with it", shown(cert))))?;
    let chain = tls::certificates(cert)?;
    if chain.is_empty() {
        return Err(Failure::configuration(format!("sslcert {} holds no certificate", shown(cert))));
    }
    let key = private_key(Path::new(key))?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|e| Failure::configuration(format!("the private key of sslcert {}: {e}", shown(cert))))?;
    let certified = CertifiedKey::new(chain, key);
    // Whatever else is wrong with the certificate is for the server to say.
    if let Err(rustls::Error::InconsistentKeys(_)) = certified.keys_match() {
        return Err(Failure::configuration(format!("sslcert {} and sslkey do not belong together", shown(cert))));
    }
    Ok(certified)
}

fn private_key(path: &Path) -> Outcome<PrivateKeyDer<'static>> {
    let unfit = |why: &str| Failure::configuration(format!("the private key {} {why}", shown(path)));
    let unread = |e: std::io::Error| unfit(&format!("cannot be read: {e}"));
    let meta = fs::metadata(path).map_err(unread)?;
    if !meta.is_file() {
        return Err(unfit("is not a plain file"));
    }
    // libpq's rule: root's own key may be readable by a group, as Debian's ssl-cert does it.
    let forbidden = if meta.uid() == 0 { 0o037 } else { 0o077 };
    if meta.mode() & forbidden != 0 {
        return Err(unfit("is not used, because others have access to it")
            .hint(format!("chmod 600 {} (0640 will do if root owns it)", shown(path))));
    }
    let bytes = fs::read(path).map_err(unread)?;
    tls::private_key(bytes, path)
}

/// Authorities, and how a certificate is held against them.
#[derive(Debug)]
struct Chain {
    /// The rules of WebPKI; `None` where no authority is of a version that they know.
    strict: Option<Arc<WebPkiServerVerifier>>,
    /// For what libpq accepts beside.
    authorities: Vec<CertificateDer<'static>>,
}

/// Believes any certificate, or those that an authority vouches for, or of these the ones that name the host. The
/// handshake's signature is checked in any case: without that not even the encryption would stand.
#[derive(Debug)]
struct Verifier {
    chain: Option<Chain>,
    host: bool,
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
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let strict = chain.strict.as_ref().map_or(Err(unknown), |strict| {
            strict.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        });
        match strict {
            // The name is the last thing that is checked there; it has its own rule here.
            Ok(_)
            | Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(error) => {
                let now = std::time::Duration::from_secs(now.as_secs());
                let algorithms = &self.provider.signature_verification_algorithms;
                if !certificate::vouched_for(end_entity, &chain.authorities, now, algorithms) {
                    return Err(error);
                }
            }
        }
        let named = || certificate::parse(end_entity).is_some_and(|c| certificate::names(&c, &server_name.to_str()));
        if self.host && !named() {
            return Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match certificate::parse(cert).filter(certificate::is_old) {
            None => rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms),
            Some(old) if certificate::handshake_signed(&old, message, dss, algorithms) => {
                Ok(HandshakeSignatureValid::assertion())
            }
            Some(_) => Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature)),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match certificate::parse(cert).filter(certificate::is_old) {
            None => rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms),
            Some(old) => {
                let key =
                    certificate::key(&old).ok_or(rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
                rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, dss, algorithms)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
