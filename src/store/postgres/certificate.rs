//! What libpq accepts of a server's certificate and the strict rules of WebPKI do not: the common name where there is
//! no alternative name, a self-signed certificate that is its own authority, and X.509 version 1. PostgreSQL's
//! documentation ("Creating Certificates") makes exactly such certificates.

use std::net::IpAddr;
use std::time::Duration;

use rustls::DigitallySignedStruct;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use x509_cert::certificate::Version;
use x509_cert::der::asn1::{Any, Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::{Certificate, TbsCertificate};

/// Reads a certificate; `None`: it is none.
pub(super) fn parse(der: &CertificateDer<'_>) -> Option<Certificate> {
    Certificate::from_der(der.as_ref()).ok()
}

/// Whether it is of a version that WebPKI's rules do not know.
pub(super) fn is_old(certificate: &Certificate) -> bool {
    certificate.tbs_certificate.version != Version::V3
}

/// Whether the certificate was made for that host, by libpq's rule ("SSL Support", "Client Verification of Server
/// Certificates"): an alternative name of the host's kind decides where there is one, else the common name.
pub(super) fn names(certificate: &Certificate, host: &str) -> bool {
    let tbs = &certificate.tbs_certificate;
    let address: Option<IpAddr> = host.parse().ok();
    let mut of_its_kind = false;
    if let Ok(Some((_, SubjectAltName(names)))) = tbs.get::<SubjectAltName>() {
        for name in names {
            match name {
                GeneralName::DnsName(name) => {
                    of_its_kind |= address.is_none();
                    if fits(name.as_str(), host) {
                        return true;
                    }
                }
                GeneralName::IpAddress(octets) => {
                    of_its_kind |= address.is_some();
                    let octets = octets.as_bytes();
                    if address.is_some_and(|a| match a {
                        IpAddr::V4(a) => a.octets() == octets,
                        IpAddr::V6(a) => a.octets() == octets,
                    }) {
                        return true;
                    }
                }
                _ => {}
            }
        }
    }
    !of_its_kind && common_name(tbs).is_some_and(|name| fits(&name, host))
}

/// Equal but for case, or a `*` that stands for one whole first label.
fn fits(pattern: &str, host: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("*.").filter(|rest| !rest.is_empty()) {
        return host
            .split_once('.')
            .is_some_and(|(label, after)| !label.is_empty() && after.eq_ignore_ascii_case(rest));
    }
    pattern.eq_ignore_ascii_case(host)
}

fn common_name(tbs: &TbsCertificate) -> Option<String> {
    let name = tbs.subject.0.iter().flat_map(|set| set.0.iter()).find(|a| a.oid == COMMON_NAME)?;
    text(&name.value).filter(|t| !t.contains('\0'))
}

fn text(value: &Any) -> Option<String> {
    Utf8StringRef::try_from(value)
        .map(|t| t.as_str().to_owned())
        .or_else(|_| PrintableStringRef::try_from(value).map(|t| t.as_str().to_owned()))
        .or_else(|_| Ia5StringRef::try_from(value).map(|t| t.as_str().to_owned()))
        .or_else(|_| TeletexStringRef::try_from(value).map(|t| t.as_str().to_owned()))
        .ok()
}

/// Whether one of the authorities vouches for a certificate in a way that WebPKI does not know: the certificate is
/// itself the self-signed authority, or it is of version 1 and signed by one directly.
pub(super) fn vouched_for(
    der: &CertificateDer<'_>,
    authorities: &[CertificateDer<'_>],
    now: Duration,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let Some(certificate) = parse(der) else { return false };
    let own = &certificate.tbs_certificate;
    if !valid(own, now) {
        return false;
    }
    authorities.iter().any(|authority| {
        let Some(parsed) = parse(authority) else { return false };
        let issuer = &parsed.tbs_certificate;
        if issuer.subject != own.issuer || !valid(issuer, now) || !signed_by(&certificate, issuer, algorithms) {
            return false;
        }
        authority == der || (is_old(&certificate) && may_sign(issuer))
    })
}

fn valid(tbs: &TbsCertificate, now: Duration) -> bool {
    tbs.validity.not_before.to_unix_duration() <= now && now <= tbs.validity.not_after.to_unix_duration()
}

/// An authority of version 1 has no way to say that it is one.
fn may_sign(issuer: &TbsCertificate) -> bool {
    issuer.version != Version::V3 || matches!(issuer.get::<BasicConstraints>(), Ok(Some((_, b))) if b.ca)
}

fn signed_by(certificate: &Certificate, issuer: &TbsCertificate, algorithms: &WebPkiSupportedAlgorithms) -> bool {
    let Ok(message) = certificate.tbs_certificate.to_der() else { return false };
    let Some(signature) = certificate.signature.as_bytes() else { return false };
    let Some(kind) = contents(&certificate.signature_algorithm) else { return false };
    let inner = contents(&certificate.tbs_certificate.signature);
    let mut fitting = algorithms.all.iter().filter(|a| a.signature_alg_id().as_ref() == kind);
    inner.as_ref() == Some(&kind) && fitting.any(|a| verifies(*a, issuer, &message, signature))
}

/// The public key of a certificate, by itself.
pub(super) fn key(certificate: &Certificate) -> Option<SubjectPublicKeyInfoDer<'static>> {
    certificate.tbs_certificate.subject_public_key_info.to_der().ok().map(SubjectPublicKeyInfoDer::from)
}

/// The signature of a TLS 1.2 handshake, by the key of a certificate that rustls does not read.
pub(super) fn handshake_signed(
    certificate: &Certificate,
    message: &[u8],
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let of_scheme = algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme);
    of_scheme.is_some_and(|(_, kinds)| {
        kinds.iter().any(|a| verifies(*a, &certificate.tbs_certificate, message, dss.signature()))
    })
}

fn verifies(
    algorithm: &dyn SignatureVerificationAlgorithm,
    signer: &TbsCertificate,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let info = &signer.subject_public_key_info;
    let (Some(kind), Some(key)) = (contents(&info.algorithm), info.subject_public_key.as_bytes()) else { return false };
    algorithm.public_key_alg_id().as_ref() == kind && algorithm.verify_signature(key, message, signature).is_ok()
}

/// The DER of an algorithm without the header of its SEQUENCE, as `rustls` compares it.
fn contents(algorithm: &AlgorithmIdentifierOwned) -> Option<Vec<u8>> {
    let der = algorithm.to_der().ok()?;
    // Below 128 bytes the header has two.
    (der.len() < 130).then(|| der.get(2..).map(<[u8]>::to_vec)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_one_label() {
        for (pattern, host, fit) in [
            ("db.example.com", "DB.example.com", true),
            ("*.example.com", "db.example.com", true),
            ("*.example.com", "a.db.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("d*.example.com", "db.example.com", false),
            ("*.", "db.", false),
            ("*", "db", false),
            ("10.0.0.1", "10.0.0.1", true),
        ] {
            assert_eq!(fits(pattern, host), fit, "{pattern} {host}");
        }
    }
}
