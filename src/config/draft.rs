//! A first configuration file: the example, in which every key is explained, with some values set.

use crate::domain::failure::{Failure, Outcome};

const EXAMPLE: &str = include_str!("../../config.example.toml");

/// The example with these values; of a key in a table its name is `table.key`.
///
/// # Errors
/// Usage: a value with control characters. Internal: a key that the example does not show.
pub fn filled(values: &[(&str, String)]) -> Outcome<String> {
    let introduction = "# Settings of mlops.";
    let mut lines: Vec<String> = EXAMPLE.lines().map(str::to_owned).collect();
    if let Some(first) = lines.first_mut() {
        *first = format!("{introduction} Values that are not in a comment are set.");
    }
    for (key, value) in values {
        if value.chars().any(char::is_control) {
            return Err(Failure::usage(format!("{key}: a value with control characters")));
        }
        let missing = || Failure::internal(format!("the example shows no {key}"));
        let (from, name) = match key.split_once('.') {
            None => (0, *key),
            Some((table, name)) => {
                let title = format!("[{table}]");
                let commented = format!("# {title}");
                let at = lines.iter().position(|l| *l == title || *l == commented).ok_or_else(missing)?;
                if let Some(line) = lines.get_mut(at) {
                    *line = title;
                }
                (at, name)
            }
        };
        let begins = [format!("# {name} = "), format!("{name} = ")];
        let line = lines.iter_mut().skip(from).find(|l| begins.iter().any(|b| l.starts_with(b.as_str())));
        let quoted = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
        *line.ok_or_else(missing)? = format!("{name} = {quoted}");
    }
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::Environment;
    use crate::config::{Flags, Settings};

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("c.toml");
        let values = [
            ("backend_store_uri", "postgresql://ml:a\"b\\c@db/mlflow".to_owned()),
            ("tracking_uri", "http://mlflow:5000".to_owned()),
            ("backup.to", "/backup/ö".to_owned()),
        ];
        std::fs::write(&file, filled(&values).expect("filled")).expect("written");
        let flags = Flags { file: Some(file), ..Flags::default() };
        let settings = Settings::resolve(&flags, Environment::of(&[])).expect("sound");
        assert_eq!(settings.backup_to(), Some("/backup/ö"));
        for (key, value) in values {
            assert_eq!(settings.get(key).map(|(text, _)| text.to_owned()), Some(value), "{key}");
        }
        assert!(filled(&[("jobs", "1\n2".to_owned())]).is_err());
    }
}
