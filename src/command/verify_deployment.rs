//! `mlops verify deployment`.

use super::verify::Verification;
use super::{Context, Ended};
use crate::cli::verify::Deployment;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::settings::Probe;
use crate::verify::deployment::{self, Request, service};
use crate::verify::name;

pub(super) fn run(context: &Context, arguments: &Deployment) -> Result<u8, Ended> {
    let services = arguments.service.iter().map(|text| service::parse(text)).collect::<Outcome<Vec<Probe>>>()?;
    let model = arguments.model.clone().unwrap_or_else(|| name(&context.id));
    if model.trim().is_empty() {
        return Err(Failure::usage("--model is empty").into());
    }
    let request = Request { model, keep: arguments.keeping.keep, services };
    if context.dry_run {
        let (file, procedure) = (arguments.keeping.report.as_deref(), deployment::procedure(&request));
        return Verification::plan(context, "deployment", file, procedure, |client, ways| {
            deployment::free(ways, client, &request.model)
        });
    }
    let mut verification = Verification::begin(context, &arguments.keeping)?;
    let mut account = verification.account("deployment");
    let (ways, client) = (&verification.ways, &verification.client);
    let outcome = deployment::verify(ways, client, &mut verification.markers, &request, &mut account);
    verification.end(outcome, account)
}
