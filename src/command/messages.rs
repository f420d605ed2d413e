//! What a monitor and a chat are told of a command: that it began, and how it went.

use std::time::Duration;

use secrecy::SecretString;

use super::{Context, Ended};
use crate::cli::backup::Messages;
use crate::config::Settings;
use crate::domain::failure::Outcome;
use crate::notify::ping::Ping;
use crate::notify::{SecretAddress, Sender, webhook};
use crate::tls;

/// The longest time for a message, with all its tries.
pub(super) const MESSAGE: Duration = Duration::from_secs(5);

/// Who sends messages: whoever is told must not hold up the telling longer than that.
pub(super) fn sender(settings: &Settings, patience: Duration) -> Outcome<Sender> {
    let tls = tls::client(settings.system_roots().as_deref(), None)?;
    let proxy = settings.proxy();
    let sender = Sender::new(tls, proxy.as_ref().map(|p| (&p.address, p.except.as_deref())))?;
    Ok(sender.patience(patience, patience / 2))
}

/// A command that somebody is told of.
pub(super) struct Telling {
    ping: Option<Ping>,
    /// Whom to tell when it did not go well.
    chat: Option<(Sender, SecretAddress)>,
    host: String,
}

impl Telling {
    /// Announces the command to those of the two who are there.
    ///
    /// # Errors
    /// Usage: an address that is none. Configuration: certificates or a proxy that cannot be used.
    pub(super) fn begin(context: &Context, ping: Option<SecretString>, chat: Option<SecretString>) -> Outcome<Telling> {
        let address = |text: Option<SecretString>| text.map(|text| SecretAddress::parse(&text)).transpose();
        let (ping, chat) = (address(ping)?, address(chat)?);
        let host = context.settings.host();
        if ping.is_none() && chat.is_none() {
            return Ok(Telling { ping: None, chat: None, host });
        }
        let sender = sender(&context.settings, MESSAGE)?;
        let ping = ping.map(|address| Ping::start(sender.clone(), address));
        Ok(Telling { ping, chat: chat.map(|address| (sender, address)), host })
    }

    /// Says how it went. That a message was not taken is a warning, and changes nothing.
    pub(super) fn end(self, well: bool, text: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        if let (Some((sender, address)), false) = (&self.chat, well) {
            let text = format!("{}: {text}", self.host);
            warnings.extend(webhook::send(sender, address, &text).err().map(|f| f.message));
        }
        warnings.extend(self.ping.map(|ping| ping.finish(well, text)).unwrap_or_default());
        warnings
    }
}

/// Does the work, which `what` names, and tells of it.
pub(super) fn told(
    context: &Context,
    messages: &Messages,
    what: &str,
    work: impl FnOnce() -> Result<u8, Ended>,
) -> Result<u8, Ended> {
    let secret = |flag: &Option<String>| flag.clone().map(SecretString::from);
    let telling = Telling::begin(context, secret(&messages.ping), secret(&messages.notify))?;
    let outcome = work();
    let (well, text) = match &outcome {
        Ok(0) => (true, format!("{what}: done")),
        Ok(code) => (false, format!("{what} ended with exit code {code}")),
        Err(ended) => (false, format!("{what} failed: {}", ended.failure.message)),
    };
    let warnings = telling.end(well, &text);
    match outcome {
        Ok(code) => {
            for warning in warnings {
                context.reporter.say(&format!("warning: {warning}"));
            }
            Ok(code)
        }
        Err(mut ended) => {
            ended.warnings.extend(warnings);
            Err(ended)
        }
    }
}
