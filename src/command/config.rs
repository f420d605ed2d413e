//! `mlops config`.

use super::{Context, Ended};
use crate::report::Result as Report;

pub(super) fn show(context: &Context) -> Result<u8, Ended> {
    context.finish(&Report::Settings(&context.settings.all()), 0, &[])
}
