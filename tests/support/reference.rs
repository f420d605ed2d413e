//! `docs/json.md` as a checker: which fields a document of a schema may have, with which types, and which it must have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde_json::Value;

/// A field: what it may be, and what may be in it.
#[derive(Debug, Clone, Default)]
struct Node {
    /// The words of its type; none: what is in it tells.
    types: BTreeSet<&'static str>,
    /// What a `word` may be.
    words: BTreeSet<String>,
    /// It has a row, and must be printed by some run.
    demanded: bool,
    /// Its rows say "only when" or the like: not every stack has it.
    sometimes: bool,
    /// Its rows say "only" or "missing", or the section does: not every document has it.
    optional: bool,
    /// By name; `[]` is each element of a list, `*` each field of a map.
    fields: BTreeMap<String, Node>,
}

/// A row of a table.
#[derive(Debug)]
struct Row {
    /// Empty: all of the section.
    path: Vec<String>,
    kind: String,
    meaning: String,
}

/// The whole reference.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    sections: BTreeMap<String, Vec<Row>>,
    /// By section and path, where the row has no room.
    words: BTreeMap<(String, String), BTreeSet<String>>,
    /// By section: the first field of those that may be missing; none: all may be.
    missing: BTreeMap<String, Option<String>>,
    /// The sections whose titles are quoted; the others are parts of them.
    documents: BTreeMap<String, Node>,
}

const TYPES: [&str; 11] =
    ["null", "boolean", "integer", "number", "text", "time", "word", "object", "list", "map", "any"];
/// What every document has, and the section with that.
const EVERY: &str = "every document";

/// Whether a field needs a cause that not every stack gives.
fn is_conditional(meaning: &str) -> bool {
    ["with", "when", "where", "without"].iter().any(|word| meaning.contains(&format!("only {word} ")))
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `one of a, b, c.`
fn words(text: &str) -> BTreeSet<String> {
    let Some((_, list)) = text.split_once("one of `") else { return BTreeSet::new() };
    let mut words = BTreeSet::new();
    for (index, part) in list.split('`').enumerate() {
        match index % 2 {
            0 => _ = words.insert(part.to_owned()),
            _ if part.contains('.') => break,
            _ => {}
        }
    }
    words
}

/// `result.tables[].rows`
fn steps(path: &str) -> Vec<String> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let name = part.trim_end_matches("[]");
        steps.push(name.to_owned());
        steps.extend((0..(part.len() - name.len()) / 2).map(|_| "[]".to_owned()));
    }
    steps
}

fn shown(path: &str, step: &str) -> String {
    match (path, step) {
        (_, "[]") => format!("{path}[]"),
        ("", _) => step.to_owned(),
        _ => format!("{path}.{step}"),
    }
}

impl Node {
    fn join(&mut self, other: Node) {
        self.types.extend(other.types);
        self.words.extend(other.words);
        self.demanded |= other.demanded;
        self.sometimes |= other.sometimes;
        self.optional |= other.optional;
        for (name, field) in other.fields {
            self.fields.entry(name).or_default().join(field);
        }
    }

    fn may_all_be_missing(&mut self) {
        self.optional = true;
        self.fields.values_mut().for_each(Node::may_all_be_missing);
    }

    /// Whether an object that should have it must have it.
    fn required(&self) -> bool {
        if self.demanded { !self.optional } else { self.fields.iter().any(|(name, n)| name != "*" && n.required()) }
    }

    /// What is wrong with a value, at most a few things; the paths that are there are kept in `seen`.
    fn check(&self, value: &Value, path: &str, seen: &mut BTreeSet<String>, wrong: &mut Vec<String>) {
        let is = |kind: &str| self.types.contains(kind);
        let named = self.fields.keys().any(|name| name != "[]");
        let fits = is("any")
            || match value {
                Value::Null => is("null"),
                Value::Bool(_) => is("boolean"),
                Value::Number(number) => is("number") || is("integer") && (number.is_u64() || number.is_i64()),
                Value::String(text) => {
                    is("text")
                        || is("word") && self.words.contains(text)
                        || is("time") && text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
                }
                Value::Array(_) => is("list") || self.fields.contains_key("[]"),
                Value::Object(_) => is("object") || is("map") || named,
            };
        if !fits {
            wrong.push(format!("{path} is {value}, and should be {:?} {:?}", self.types, self.words));
            return;
        }
        if !value.is_null() || self.types.iter().eq(["null"].iter()) {
            seen.insert(path.to_owned());
        }
        if is("any") {
            return;
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match (self.fields.get(name), self.fields.get("*")) {
                        (Some(node), _) => node.check(value, &shown(path, name), seen, wrong),
                        (None, Some(node)) => node.check(value, &shown(path, "*"), seen, wrong),
                        (None, None) => wrong.push(format!("{} is not documented: {value}", shown(path, name))),
                    }
                }
                // An `object` may be empty.
                let required = self.fields.iter().filter(|_| !(fields.is_empty() && is("object")));
                for (name, _) in
                    required.filter(|(name, n)| name != &"[]" && n.required() && !fields.contains_key(*name))
                {
                    wrong.push(format!("{} is not there", shown(path, name)));
                }
            }
            Value::Array(list) => {
                for value in list {
                    match self.fields.get("[]") {
                        Some(node) => node.check(value, &shown(path, "[]"), seen, wrong),
                        None => wrong.push(format!("{path}[] is not documented: {value}")),
                    }
                }
            }
            _ => {}
        }
    }

    /// The rows: path, whether it may be missing, and what is quoted as its words.
    fn rows<'a>(&'a self, path: &str, sometimes: bool, out: &mut Vec<(String, bool, &'a BTreeSet<String>)>) {
        let sometimes = sometimes || self.sometimes;
        if self.demanded {
            out.push((path.to_owned(), sometimes, &self.words));
        }
        for (name, field) in &self.fields {
            field.rows(&shown(path, name), sometimes, out);
        }
    }
}

impl Reference {
    fn parse(text: &str) -> Reference {
        let mut reference = Reference::default();
        let mut names: Vec<String> = Vec::new();
        let mut documents: Vec<String> = Vec::new();
        let mut paragraph = String::new();
        let mut fenced = false;
        for line in text.lines().chain([""]) {
            fenced ^= line.starts_with("```");
            if let Some(title) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")).filter(|_| !fenced) {
                names = quoted(title).map(str::to_owned).collect();
                documents.extend(names.clone());
                if names.is_empty() {
                    names = vec![title.to_lowercase()];
                }
                for name in &names {
                    let there = reference.sections.insert(name.clone(), Vec::new());
                    assert!(there.is_none(), "two sections are called {name}");
                }
            } else if let Some(row) = Row::parse(line) {
                for name in &names {
                    reference.sections.get_mut(name).unwrap().push(Row { path: row.path.clone(), ..row.copy() });
                }
            } else if line.is_empty() {
                let from = paragraph.split_once("he fields from `").filter(|_| paragraph.contains(" are missing"));
                let from = from.and_then(|(_, rest)| rest.split('`').next()).map(str::to_owned);
                if from.is_some() || paragraph.contains("nothing else") {
                    reference.missing.extend(names.iter().map(|name| (name.clone(), from.clone())));
                }
                if let (Some(path), true) = (quoted(&paragraph).next(), paragraph.starts_with('`')) {
                    let (path, all) = (path.to_owned(), words(&paragraph));
                    reference.words.extend(names.iter().map(|name| ((name.clone(), path.clone()), all.clone())));
                }
                paragraph.clear();
            } else {
                paragraph.push_str(line);
                paragraph.push(' ');
            }
        }
        let every = reference.section(EVERY);
        for name in documents {
            let mut node = reference.section(&name);
            if node.fields.keys().eq(["result"]) {
                node.join(every.clone());
            }
            reference.documents.insert(name, node);
        }
        reference
    }

    fn section(&self, name: &str) -> Node {
        let mut root = Node::default();
        let mut missing = false;
        for row in self.sections.get(name).unwrap_or_else(|| panic!("there is no section {name}")) {
            let mut node = self.of_type(&row.kind);
            node.demanded = !row.path.is_empty();
            node.sometimes = is_conditional(&row.meaning);
            let path = row.path.iter().fold(String::new(), |path, step| shown(&path, step));
            missing |= self.missing.get(name).and_then(Option::as_ref) == Some(&path);
            node.optional = missing
                || row.meaning.contains("missing")
                || row.meaning.contains("only ") && !node.types.contains("null");
            if node.types.contains("word") {
                let apart = self.words.get(&(name.to_owned(), path.clone())).cloned().unwrap_or_default();
                node.words = words(&row.meaning).into_iter().chain(apart).collect();
                assert!(node.words.len() > 1, "{name}: {path} does not say which words it can be");
            }
            let mut at = &mut root;
            for step in &row.path {
                at = at.fields.entry(step.clone()).or_default();
            }
            at.join(node);
        }
        if self.missing.get(name).is_some_and(Option::is_none) {
            root.may_all_be_missing();
        }
        root
    }

    /// `list of [version](#version) or null`
    fn of_type(&self, kind: &str) -> Node {
        let mut node = Node::default();
        for one in kind.split(" or ") {
            let inner = one.split_once(" of ").map(|(outer, of)| (outer, self.of_type(of)));
            match (inner, one.strip_prefix('[').and_then(|link| link.split_once("](#"))) {
                (Some(("list", of)), _) => node.fields.entry("[]".to_owned()).or_default().join(of),
                (Some(("map", of)), _) => node.fields.entry("*".to_owned()).or_default().join(of),
                (None, Some((name, anchor))) if anchor == format!("{name})") => node.join(self.section(name)),
                _ => {
                    let known = TYPES.iter().find(|known| **known == one);
                    node.types.insert(known.unwrap_or_else(|| panic!("{one} is no type")));
                }
            }
        }
        node
    }

    /// Holds a document against the section of that name: the paths that it has.
    ///
    /// # Errors
    /// The first of what is not as the section says.
    pub(crate) fn check(&self, section: &str, document: &Value) -> Result<BTreeSet<String>, String> {
        let node = self.documents.get(section).ok_or_else(|| format!("docs/json.md has no section `{section}`"))?;
        let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
        let failed = document.get("error").is_some_and(|e| !e.is_null());
        let mut node = node.clone();
        if failed
            && document["result"].is_null()
            && let Some(result) = node.fields.get_mut("result")
        {
            // Then there is no result, whatever it is else.
            *result = Node { types: BTreeSet::from(["null"]), ..Node::default() };
        }
        node.check(document, "", &mut seen, &mut wrong);
        let list = |wrong: &[String]| wrong.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
        if wrong.is_empty() { Ok(seen) } else { Err(format!("{section}, in docs/json.md:\n{}", list(&wrong))) }
    }

    /// The names of all documents.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.documents.keys().map(String::as_str)
    }

    /// The rows of a section: path, whether it may be missing, and its words.
    pub(crate) fn rows(&self, section: &str) -> Vec<(String, bool, &BTreeSet<String>)> {
        let mut rows = Vec::new();
        self.documents[section].rows("", false, &mut rows);
        rows
    }
}

impl Row {
    /// `| field | type | meaning |`
    fn parse(line: &str) -> Option<Row> {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let [path, kind, meaning] = cells[..] else { panic!("not three cells: {line}") };
        let path = match path.strip_prefix('`').and_then(|p| p.strip_suffix('`')) {
            Some(path) => steps(path),
            None if path == "all of" => Vec::new(),
            None if path == "field" => return None,
            None => panic!("neither a field nor a part: {line}"),
        };
        Some(Row { path, kind: kind.to_owned(), meaning: meaning.to_owned() })
    }

    fn copy(&self) -> Row {
        Row { path: self.path.clone(), kind: self.kind.clone(), meaning: self.meaning.clone() }
    }
}

/// The reference, read once.
pub(crate) fn reference() -> &'static Reference {
    static READ: OnceLock<Reference> = OnceLock::new();
    READ.get_or_init(|| {
        let text = std::fs::read_to_string(super::root().join("docs/json.md")).expect("docs/json.md");
        Reference::parse(&text)
    })
}

/// Fails where a document that the program printed is not as the reference says.
#[track_caller]
pub(crate) fn documented(document: &Value) {
    if let Some(schema) = document["schema"].as_str().filter(|s| s.starts_with("mlops."))
        && let Err(wrong) = reference().check(schema, document)
    {
        panic!("{wrong}");
    }
}
