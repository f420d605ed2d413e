//! Completions and man pages, made by the program from its own command line.

use std::path::Path;

use super::Ended;
use crate::domain::address::shown;
use crate::domain::failure::Failure;
use crate::{cli, report};

pub(super) fn completions(shell: clap_complete::Shell) -> Result<u8, Ended> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::definition(), "mlops", &mut script);
    report::raw(&script);
    Ok(0)
}

pub(super) fn man(folder: &Path) -> Result<u8, Ended> {
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(cli::definition(), folder))
        .map_err(|e| Failure::target(format!("{}: {e}", shown(folder))))?;
    Ok(0)
}
