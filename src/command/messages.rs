//! What a monitor and a chat are told of a command: that it began, and how it went.

use std::time::Duration;

use super::{Context, Ended};
use crate::cli::backup::Messages;
use crate::domain::failure::Outcome;
use crate::notify::ping::Ping;
use crate::notify::{SecretAddress, Sender, webhook};
use crate::tls;

/// The longest time for a message, with all its tries.
const MESSAGE: Duration = Duration::from_secs(5);

/// Who sends messages.
pub(super) fn sender(context: &Context) -> Outcome<Sender> {
    let tls = tls::client(context.settings.system_roots().as_deref(), None)?;
    let proxy = context.settings.proxy();
    let sender = Sender::new(tls, proxy.as_ref().map(|p| (&p.address, p.except.as_deref())))?;
    Ok(sender.patience(MESSAGE, MESSAGE / 2))
}

/// Does the work, which `what` names, and tells of it. That a message was not taken is a warning, and changes nothing.
pub(super) fn told(
    context: &Context,
    messages: &Messages,
    what: &str,
    work: impl FnOnce() -> Result<u8, Ended>,
) -> Result<u8, Ended> {
    let address = |flag: &Option<String>| flag.clone().map(|text| SecretAddress::parse(&text.into())).transpose();
    let (to_ping, to_tell) = (address(&messages.ping)?, address(&messages.notify)?);
    if to_ping.is_none() && to_tell.is_none() {
        return work();
    }
    let sender = sender(context)?;
    let ping = to_ping.map(|address| Ping::start(sender.clone(), address));
    let outcome = work();
    let (well, text) = match &outcome {
        Ok(0) => (true, format!("{what}: done")),
        Ok(code) => (false, format!("{what} ended with exit code {code}")),
        Err(ended) => (false, format!("{what} failed: {}", ended.failure.message)),
    };
    let mut warnings = Vec::new();
    if let (Some(address), false) = (&to_tell, well) {
        let text = format!("{}: {text}", context.settings.host());
        warnings.extend(webhook::send(&sender, address, &text).err().map(|f| f.message));
    }
    warnings.extend(ping.map(|ping| ping.finish(well, &text)).unwrap_or_default());
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
