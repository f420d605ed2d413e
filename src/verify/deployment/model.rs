//! The model that is registered: small, valid, and without a pickle. `mlflow.pyfunc.load_model` loads it on every release
//! from 2.9 on: its flavour names a module that lies in the model's own folder `code` (MLflow: pyfunc/__init__.py,
//! `_load_pyfunc`), which needs nothing but Python.

use std::fmt::Write as _;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::domain::signature::FILE;

/// What it takes, what it gives: the texts that stand in `MLmodel`. 2.9 knows no key `required`, and later releases take it
/// as given.
pub const INPUTS: &str = r#"[{"type": "double", "name": "x"}]"#;
/// See [`INPUTS`].
pub const OUTPUTS: &str = r#"[{"type": "double"}]"#;
/// What it computes: `SLOPE * x + OFFSET`.
const SLOPE: f64 = 2.0;
const OFFSET: f64 = 0.5;
/// Its module.
const CODE: &str = r#"import json


class Line:
    def __init__(self, path):
        with open(path) as file:
            weights = json.load(file)
        self.slope, self.offset = weights["slope"], weights["offset"]

    def predict(self, data, params=None):
        return [self.slope * x + self.offset for x in data["x"]]


def _load_pyfunc(path, model_config=None):
    return Line(path)
"#;
/// A Python that every release from 2.9 on runs with; it is compared for a warning only.
const PYTHON: &str = "3.10.14";

/// A model, before it has files.
#[derive(Debug, Clone)]
pub struct Model {
    /// The run of the verification.
    pub id: String,
    /// The server's release, which the model says it was made with.
    pub mlflow: String,
    /// The run that it belongs to.
    pub run: String,
    /// The logged model that it is (MLflow 3).
    pub logged: Option<String>,
    /// When, as MLflow writes it: UTC, `2026-11-21 19:18:49.208353`.
    pub made: String,
}

/// A file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path below the model's folder.
    pub path: String,
    /// Content.
    pub content: Vec<u8>,
}

impl File {
    fn new(path: &str, content: impl Into<Vec<u8>>) -> File {
        File { path: path.to_owned(), content: content.into() }
    }
}

/// SHA-256 in hex.
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

impl Model {
    /// The name of its module; Python keeps a module by its name, so two models of one process need two.
    fn module(&self) -> String {
        let own: String = self.id.chars().filter(char::is_ascii_alphanumeric).collect();
        format!("mlops_verify_{}", own.to_ascii_lowercase())
    }

    /// A logged model's id, or 32 hex digits.
    pub fn uuid(&self) -> String {
        self.logged.clone().unwrap_or_else(|| sha256(self.id.as_bytes()).chars().take(32).collect())
    }

    /// All its files, `MLmodel` last: who sees it sees a whole model.
    pub fn files(&self) -> Vec<File> {
        let module = self.module();
        let code = CODE;
        let weights = json!({ "slope": SLOPE, "offset": OFFSET, "made_by": format!("mlops verify {}", self.id) });
        let requirements = format!("mlflow=={}\n", self.mlflow);
        let conda = format!(
            "channels:\n- conda-forge\ndependencies:\n- python={PYTHON}\n- pip\n- pip:\n  - mlflow=={}\nname: mlflow-env\n",
            self.mlflow
        );
        let python = format!(
            "python: {PYTHON}\nbuild_dependencies:\n- pip\n- setuptools\n- wheel\ndependencies:\n- -r requirements.txt\n"
        );
        let example = r#"{"columns": ["x"], "data": [[1.0], [2.0]]}"#;
        let mut files = vec![
            File::new(&format!("code/{module}.py"), code),
            File::new("data/weights.json", weights.to_string()),
            File::new("requirements.txt", requirements),
            File::new("conda.yaml", conda),
            File::new("python_env.yaml", python),
            File::new("input_example.json", example),
        ];
        let bytes: usize = files.iter().map(|f| f.content.len()).sum();
        files.push(File::new(FILE, self.mlmodel(&module, bytes)));
        files
    }

    /// As MLflow writes it (models/model.py, `Model.to_dict`), keys in order.
    fn mlmodel(&self, module: &str, bytes: usize) -> String {
        let mut text = String::new();
        if self.logged.is_none() {
            text.push_str("artifact_path: model\n");
        }
        let _ = write!(
            text,
            "flavors:\n  python_function:\n    code: code\n    data: data/weights.json\n    env:\n      conda: conda.yaml\n      \
             virtualenv: python_env.yaml\n    loader_module: {module}\n    python_version: {PYTHON}\n\
             metadata:\n  mlops_verify: '{}'\nmlflow_version: {}\n",
            self.id, self.mlflow
        );
        if let Some(logged) = &self.logged {
            let _ = writeln!(text, "model_id: {logged}");
        }
        let _ = write!(
            text,
            "model_size_bytes: {bytes}\nmodel_uuid: {}\nrun_id: {}\nsaved_input_example_info:\n  artifact_path: \
             input_example.json\n  pandas_orient: split\n  type: dataframe\nsignature:\n  inputs: '{INPUTS}'\n  \
             outputs: '{OUTPUTS}'\n  params: null\nutc_time_created: '{}'\n",
            self.uuid(),
            self.run,
            self.made
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::signature::MlModel;

    #[test]
    fn what_is_written_is_what_this_program_reads() {
        let model = Model {
            id: "20261121T030000Z-1f2e3d4c".to_owned(),
            mlflow: "3.4.0".to_owned(),
            run: "r".repeat(32),
            logged: Some("m-0123".to_owned()),
            made: "2026-11-21 03:00:00.000000".to_owned(),
        };
        for model in [model.clone(), Model { logged: None, ..model }] {
            let files = model.files();
            let last = files.last().expect("files");
            assert_eq!(last.path, FILE);
            let read = MlModel::parse(&last.content).expect("sound");
            assert_eq!((read.model_uuid, read.run_id), (Some(model.uuid()), Some(model.run.clone())));
            let signature = read.signature.expect("one");
            assert_eq!(signature.inputs.map(|f| f[0].kind.clone()).as_deref(), Some("double"));
        }
    }
}
