//! `mlops verify concurrency`.

use super::server::server;
use super::verify::Verification;
use super::{Context, Ended};
use crate::cli::verify::Concurrency;
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::health::settings::Amount;
use crate::domain::span;
use crate::domain::verify::limits::Written;
use crate::mlflow::Client;
use crate::verify::concurrency::{self, Baseline, Request};

pub(super) fn run(context: &Context, arguments: &Concurrency) -> Result<u8, Ended> {
    let request = request(context, arguments)?;
    if context.dry_run {
        let (file, procedure) = (arguments.keeping.report.as_deref(), concurrency::procedure(&request));
        return Verification::plan(context, "concurrency", file, procedure, |_, _| Ok(()));
    }
    let mut verification = Verification::begin(context, &arguments.keeping)?;
    let mut account = verification.account("concurrency");
    let (ways, client) = (&verification.ways, &verification.client);
    let events = context.events.as_ref();
    let outcome = concurrency::verify(ways, client, &mut verification.markers, &request, &mut account, events);
    verification.end(outcome, account)
}

fn request(context: &Context, arguments: &Concurrency) -> Outcome<Request> {
    let duration = arguments.duration.as_deref().map(|text| {
        let wrong = || Failure::usage(format!("--duration {}: not a time", text.escape_debug())).hint("--duration 60s");
        span::parse(text).filter(|time| !time.is_zero()).ok_or_else(wrong)
    });
    let flags = Written {
        max_p95: arguments.max_p95.clone().map(Amount::Text),
        min_rate: arguments.min_rate,
        max_errors: arguments.max_errors,
        worse_than: arguments.worse_than,
    };
    // What the file says was looked at when it was read.
    let as_usage = |failure: Failure| Failure { kind: Kind::Usage, ..failure };
    let limits = flags.or(&context.settings.concurrency()).limits().map_err(as_usage)?;
    let mut request = Request {
        writers: arguments.writers,
        runs: arguments.runs,
        metrics: arguments.metrics,
        duration: duration.transpose()?,
        limits,
        baseline: arguments.baseline.as_deref().map(Baseline::read).transpose()?,
        database: context.settings.backend_store_uri()?,
        clients: Vec::new(),
    };
    request.sound()?;
    if !context.dry_run {
        // Clones share their connections; these do not.
        request.clients = (0..request.writers)
            .map(|_| server(context).map(|client| client.once()))
            .collect::<Outcome<Vec<Client>>>()?;
    }
    Ok(request)
}
