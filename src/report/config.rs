//! Settings: what they are, whether they work, and a file of them.

use std::path::Path;

use serde_json::{Value, json};

use super::human::{BAD, BOLD, GOOD, painted};
use super::table::table;
use crate::config::Setting;
use crate::domain::address::shown;
use crate::domain::tried::{Tried, Went};

fn origin(setting: &Setting) -> String {
    match &setting.from {
        Some(from) => format!("{from}, as {} says", setting.origin),
        None => setting.origin.to_string(),
    }
}

pub(super) fn settings_text(settings: &[Setting]) -> String {
    let rows = settings
        .iter()
        .map(|s| vec![s.key.to_owned(), s.value.clone().unwrap_or_else(|| "-".to_owned()), origin(s)])
        .collect();
    table(&["setting", "value", "origin"], rows, &[])
}

pub(super) fn settings_value(settings: &[Setting]) -> Value {
    let one = |s: &Setting| json!({"key": s.key, "value": s.value, "origin": origin(s)});
    json!({"settings": settings.iter().map(one).collect::<Vec<_>>()})
}

fn file_told(file: Option<&Path>) -> String {
    file.map_or("no configuration file: flags, environment variables and defaults".to_owned(), shown)
}

pub(super) fn tried_text(file: Option<&Path>, tried: &[Tried]) -> String {
    let mut out = format!("{}\n\n", file_told(file));
    let width = tried.iter().map(|t| t.key.len()).max().unwrap_or_default();
    for one in tried {
        let word = format!("{:<7}", one.went.word());
        let word = match one.went {
            Went::Well => painted(GOOD, &word),
            Went::Wrong => painted(BAD, &word),
            Went::Unset => word,
        };
        out.push_str(format!("{word}  {:<width$}  {}", one.key, one.told).trim_end());
        out.push('\n');
        if let Some(hint) = &one.hint {
            out.push_str(&format!("{:11}{:width$}{} {hint}\n", "", "", painted(BOLD, "hint:")));
        }
    }
    let wrong = tried.iter().filter(|t| t.went == Went::Wrong).count();
    out.push_str(&match wrong {
        0 => "\nAll that is set works.\n".to_owned(),
        n => format!("\n{n} of {} do not work.\n", tried.iter().filter(|t| t.went != Went::Unset).count()),
    });
    out
}

pub(super) fn tried_value(file: Option<&Path>, tried: &[Tried]) -> Value {
    let one = |t: &Tried| json!({"key": t.key, "status": t.went.id(), "message": t.told, "hint": t.hint});
    json!({"file": file.map(shown), "settings": tried.iter().map(one).collect::<Vec<_>>()})
}

pub(super) fn drafted_text(file: &Path, keys: &[&str], usual: bool) -> String {
    let name = shown(file);
    let named = if usual { String::new() } else { format!(" --config {name}") };
    format!(
        "{} {name}, for its owner only: {}\n\n{} mlops config check{named}\n",
        painted(BOLD, "Written:"),
        keys.join(", "),
        painted(BOLD, "Next:")
    )
}
