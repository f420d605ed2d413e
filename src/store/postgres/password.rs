//! Passwords of roles as PostgreSQL keeps them. A password is turned into its verifier here, so that no statement, and
//! so no log of the server's, ever holds it in clear text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// The verifier to store for a password: `SCRAM-SHA-256$4096:<salt>$<stored key>:<server key>`.
pub(super) fn verifier(password: &SecretString) -> String {
    postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes())
}

/// Whether a stored verifier is that of this password; `None` where its form is not known.
pub(super) fn matches(stored: &str, role: &str, password: &SecretString) -> Option<bool> {
    let password = password.expose_secret();
    if stored.starts_with("md5") {
        return Some(postgres_protocol::password::md5(password.as_bytes(), role) == stored);
    }
    let (head, keys) = stored.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
    let (iterations, salt) = head.split_once(':')?;
    let (stored_key, _) = keys.split_once(':')?;
    let (iterations, salt) = (iterations.parse().ok()?, STANDARD.decode(salt).ok()?);
    let client_key = hmac(&salted(password, &salt, iterations)?, &[b"Client Key"])?;
    Some(STANDARD.encode(Sha256::digest(client_key)) == stored_key)
}

/// RFC 5802's `Hi` over the password as RFC 4013 prepares it; what that forbids is taken as it is, as PostgreSQL does.
fn salted(password: &str, salt: &[u8], iterations: u32) -> Option<Vec<u8>> {
    let prepared = stringprep::saslprep(password).map_or_else(|_| password.to_owned(), |p| p.into_owned());
    let mut last = hmac(prepared.as_bytes(), &[salt, &1_u32.to_be_bytes()])?;
    let mut sum = last.clone();
    for _ in 1..iterations {
        last = hmac(prepared.as_bytes(), &[&last])?;
        sum.iter_mut().zip(&last).for_each(|(sum, byte)| *sum ^= byte);
    }
    Some(sum)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    parts.iter().for_each(|part| mac.update(part));
    Some(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_that_of_its_password_only() {
        for text in ["hunter2", "größer: 'x'\\", "a\u{a0}b", "\u{7}bell"] {
            let (right, wrong) = (SecretString::from(text), SecretString::from("another"));
            let stored = verifier(&right);
            assert!(stored.starts_with("SCRAM-SHA-256$4096:") && !stored.contains(text));
            assert_eq!(matches(&stored, "mlflow", &right), Some(true), "{text}");
            assert_eq!(matches(&stored, "mlflow", &wrong), Some(false), "{text}");
        }
        // `SELECT 'md5' || md5('hunter2' || 'mlflow')` of PostgreSQL's.
        let stored = postgres_protocol::password::md5(b"hunter2", "mlflow");
        assert_eq!(matches(&stored, "mlflow", &SecretString::from("hunter2")), Some(true));
        assert_eq!(matches(&stored, "mlflow", &SecretString::from("hunter3")), Some(false));
        assert_eq!(matches("scram-sha-512", "mlflow", &SecretString::from("hunter2")), None);
    }
}
