//! Files with sections, `key = value` a line: what Amazon's and MLflow's own clients keep their credentials in.

/// The pairs of the section of that name, keys in lower case; `None`: the text has no such section. Comments stand on
/// lines of their own; what is indented belongs to the key before it (`s3 =` of Amazon's files) and is passed over.
pub(super) fn section(text: &str, name: &str) -> Option<Vec<(String, String)>> {
    let mut found: Option<Vec<(String, String)>> = None;
    let mut inside = false;
    for line in text.lines().filter(|l| !l.trim().is_empty() && !l.trim_start().starts_with(['#', ';'])) {
        if let Some(header) = line.trim().strip_prefix('[') {
            inside = header.split(']').next().is_some_and(|title| title.trim() == name);
            if inside && found.is_none() {
                found = Some(Vec::new());
            }
            continue;
        }
        let nested = line.starts_with([' ', '\t']);
        if let (true, false, Some(found), Some((key, value))) = (inside, nested, &mut found, line.split_once('=')) {
            found.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections() {
        let text = "# mine\n[default]\nAWS_access_key_id = AK\naws_secret_access_key=s=e/c\n\n[ profile team ]\nregion = eu\n\
                    s3 =\n  endpoint_url = http://nested\noutput=json\n[default]\nregion = us\n[empty]\n";
        let pairs = |p: &[(&str, &str)]| Some(p.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        let default = [("aws_access_key_id", "AK"), ("aws_secret_access_key", "s=e/c"), ("region", "us")];
        assert_eq!(section(text, "default"), pairs(&default));
        assert_eq!(section(text, "profile team"), pairs(&[("region", "eu"), ("s3", ""), ("output", "json")]));
        assert_eq!(section(text, "empty"), pairs(&[]));
        assert_eq!(section(text, "team"), None);
    }
}
