//! An address that is a key: whoever has it may ping, or write into a channel.

use std::fmt;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use crate::domain::failure::{Failure, Outcome};

/// An `http://` or `https://` address whose path is a secret. Printed without path, query and password, always.
#[derive(Clone)]
pub struct SecretAddress {
    whole: SecretString,
    shown: String,
}

impl SecretAddress {
    /// The address in a text.
    ///
    /// # Errors
    /// Configuration: it is no address, or neither `http` nor `https`.
    pub fn parse(text: &SecretString) -> Outcome<SecretAddress> {
        let wrong = |why: &str| {
            Failure::configuration(format!("the address to notify {why}"))
                .hint("it begins with https:// or http:// and a host name; it is not shown here, because it is a key")
        };
        let url = Url::parse(text.expose_secret().trim()).map_err(|e| wrong(&format!("is none: {e}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("is neither http nor https"));
        }
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map_or(String::new(), |p| format!(":{p}"));
        let shown = format!("{}://{host}{port}/***", url.scheme());
        Ok(SecretAddress { whole: SecretString::from(String::from(url)), shown })
    }

    /// The address itself, for a request and nothing else.
    pub(super) fn url(&self) -> Outcome<Url> {
        Url::parse(self.whole.expose_secret()).map_err(|e| Failure::internal(format!("{self} is no address: {e}")))
    }
}

impl fmt::Display for SecretAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for SecretAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_checked_and_never_shown() {
        let parse = |text: &str| SecretAddress::parse(&SecretString::from(text));
        for (text, shown) in [
            ("https://hc-ping.com/5f0a-key", "https://hc-ping.com/***"),
            (" http://u:pass@[::1]:8000/p?key=k ", "http://[::1]:8000/***"),
        ] {
            let address = parse(text).expect("an address");
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        }
        for text in
            ["ftp://h/5f0a-key", "hc-ping.com/5f0a-key", "", "file:///5f0a-key", "https://", "http://h:99999/5f0a-key"]
        {
            let failure = parse(text).expect_err(text);
            assert!(!format!("{failure:?}").contains("5f0a"), "{failure:?}");
        }
    }
}
