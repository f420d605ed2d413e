//! The file `MLmodel` of a model: what made it, and what it takes and gives (MLflow: models/model.py, `Model.to_dict`;
//! models/signature.py; types/schema.py). It comes from whoever wrote into the artifact store, so nothing of it is
//! trusted: its size and its nesting are bounded, and what is not understood is said.

use serde::Deserialize;
use serde_json::Value;

/// The file's name in a model's folder.
pub const FILE: &str = "MLmodel";
/// Bytes of a file that is read; MLflow's own are some 1,000.
pub const MOST: usize = 1 << 20;

/// What a model says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MlModel {
    /// What it takes and gives; `None`: it does not say.
    pub signature: Option<Signature>,
    /// Its id: hex digits, or `m-` and hex digits of a logged model.
    pub model_uuid: Option<String>,
    /// The run that made it.
    pub run_id: Option<String>,
    /// The release that made it.
    pub mlflow_version: Option<String>,
    /// When that was, UTC, as MLflow writes it: `2026-11-21 19:18:49.208353`.
    pub utc_time_created: Option<String>,
}

/// What a model takes and gives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signature {
    /// What it takes; `None`: it does not say.
    pub inputs: Option<Vec<Field>>,
    /// What it gives; `None` likewise.
    pub outputs: Option<Vec<Field>>,
    /// Parameters of a prediction; `None`: it has none.
    pub params: Option<Vec<Field>>,
}

/// A column, a tensor or a parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name; a model with one tensor, or unnamed columns, has none.
    pub name: Option<String>,
    /// Its type, in words: `double`, `array of string`, `tensor of float32 (-1, 28, 28)`, `object {a: long, b?: double}`.
    pub kind: String,
    /// Whether it must be given.
    pub required: bool,
    /// What a parameter is where it is not given, as JSON.
    pub default: Option<Value>,
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    signature: Option<WrittenSignature>,
    #[serde(default)]
    model_uuid: Option<String>,
    #[serde(default)]
    run_id: Option<String>,
    #[serde(default)]
    mlflow_version: Option<String>,
    #[serde(default)]
    utc_time_created: Option<String>,
}

#[derive(Deserialize)]
struct WrittenSignature {
    #[serde(default)]
    inputs: Option<String>,
    #[serde(default)]
    outputs: Option<String>,
    #[serde(default)]
    params: Option<String>,
}

impl MlModel {
    /// Reads the file.
    ///
    /// # Errors
    /// A sentence: what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<MlModel, String> {
        if bytes.len() > MOST {
            return Err(format!("{FILE} has over {MOST} bytes"));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(format!("{FILE} is empty"));
        }
        let options = serde_saphyr::options! { with_snippet: false };
        let written: Written = serde_saphyr::from_slice_with_options(bytes, options)
            .map_err(|e| format!("{FILE} is not what MLflow writes: {}", line(&e.to_string())))?;
        let signature = written.signature.map(WrittenSignature::read).transpose()?;
        Ok(MlModel {
            signature: signature.filter(|s| *s != Signature::default()),
            model_uuid: written.model_uuid,
            run_id: written.run_id,
            mlflow_version: written.mlflow_version,
            utc_time_created: written.utc_time_created,
        })
    }
}

impl WrittenSignature {
    fn read(self) -> Result<Signature, String> {
        let part = |name: &str, text: Option<String>, field: fn(&Value) -> Option<Field>| {
            let unread = |why: String| format!("the {name} of the signature in {FILE} {why}");
            // Python takes an empty text for none.
            let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
            let fields: Vec<Value> = serde_json::from_str(&text).map_err(|e| unread(format!("are no list: {e}")))?;
            let fields: Option<Vec<Field>> = fields.iter().map(field).collect();
            fields.map(Some).ok_or_else(|| unread("hold something without a type".to_owned()))
        };
        Ok(Signature {
            inputs: part("inputs", self.inputs, column)?,
            outputs: part("outputs", self.outputs, column)?,
            params: part("params", self.params, param)?,
        })
    }
}

fn name(field: &Value) -> Option<String> {
    match field.get("name")? {
        Value::Null => None,
        Value::String(name) => Some(name.clone()),
        other => Some(other.to_string()),
    }
}

fn column(field: &Value) -> Option<Field> {
    // Up to 2.9 `optional` stood in the place of `required`.
    let optional = field.get("optional").and_then(Value::as_bool).unwrap_or(false);
    let required = field.get("required").and_then(Value::as_bool).unwrap_or(!optional);
    Some(Field { name: name(field), kind: kind(field)?, required, default: None })
}

fn param(field: &Value) -> Option<Field> {
    let mut kind = kind(field)?;
    if let Some(Value::Array(shape)) = field.get("shape") {
        kind = format!("{kind} {}", shaped(shape));
    }
    // Whoever leaves it out gets the default, and a default there always is.
    Some(Field {
        name: name(field),
        kind,
        required: false,
        default: Some(field.get("default").cloned().unwrap_or_default()),
    })
}

/// A type in words; `None`: none is told.
fn kind(spec: &Value) -> Option<String> {
    let told = spec.get("type")?.as_str()?;
    Some(match told {
        "tensor" => {
            let tensor = spec.get("tensor-spec")?;
            let shape = tensor.get("shape").and_then(Value::as_array).map_or(String::new(), |s| shaped(s));
            format!("tensor of {} {shape}", tensor.get("dtype")?.as_str()?).trim_end().to_owned()
        }
        "array" => format!("array of {}", kind(spec.get("items")?)?),
        "map" => format!("map of {}", kind(spec.get("values")?)?),
        "object" => {
            let properties = spec.get("properties")?.as_object()?.iter().map(|(name, spec)| {
                let required = spec.get("required").and_then(Value::as_bool).unwrap_or(true);
                Some(format!("{name}{}: {}", if required { "" } else { "?" }, kind(spec)?))
            });
            format!("object {{{}}}", properties.collect::<Option<Vec<_>>>()?.join(", "))
        }
        other => other.to_owned(),
    })
}

/// `(-1, 28, 28)`; -1 stands for any size.
fn shaped(shape: &[Value]) -> String {
    format!("({})", shape.iter().map(Value::to_string).collect::<Vec<_>>().join(", "))
}

/// A text as one line of a bearable length.
fn line(text: &str) -> String {
    const MOST: usize = 200;
    let plain: String = text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(field: &Field) -> (Option<&str>, &str, bool) {
        (field.name.as_deref(), field.kind.as_str(), field.required)
    }

    fn signed(inputs: &str) -> Result<Signature, String> {
        let text = format!("signature:\n  inputs: '{inputs}'\n  outputs: null\n");
        MlModel::parse(text.as_bytes()).map(|m| m.signature.unwrap_or_default())
    }

    #[test]
    fn what_mlflow_wrote() {
        let text = "artifact_path: mlflow-artifacts:/1/models/m-1/artifacts
flavors:
  python_function: {cloudpickle_version: 3.1.2, code: null, env: {conda: conda.yaml}, python_version: 3.11.7}
is_signature_from_type_hint: false
mlflow_version: 3.4.0
model_size_bytes: 1427
model_uuid: m-ae3e7aa783254041ae0e95be97ed16b4
prompts: null
run_id: faaffb1b15b24c4f9ec221d34e1655cb
signature:
  inputs: '[{\"type\": \"double\", \"name\": \"temp\", \"required\": true}, {\"type\": \"long\", \"name\": \"a\",
    \"required\": false}]'
  outputs: '[{\"type\": \"any\", \"required\": true}]'
  params: '[{\"name\": \"t\", \"default\": 0.5, \"shape\": null, \"type\": \"double\"}, {\"name\": \"s\",
    \"default\": [\"x\"], \"shape\": [-1], \"type\": \"string\"}]'
utc_time_created: '2026-11-21 19:18:52.518497'
";
        let model = MlModel::parse(text.as_bytes()).expect("sound");
        assert_eq!(model.model_uuid.as_deref(), Some("m-ae3e7aa783254041ae0e95be97ed16b4"));
        assert_eq!(model.run_id.as_deref(), Some("faaffb1b15b24c4f9ec221d34e1655cb"));
        assert_eq!(model.mlflow_version.as_deref(), Some("3.4.0"));
        assert_eq!(model.utc_time_created.as_deref(), Some("2026-11-21 19:18:52.518497"));
        let Signature { inputs, outputs, params } = model.signature.expect("signed");
        let inputs = inputs.expect("inputs");
        assert_eq!(
            inputs.iter().map(told).collect::<Vec<_>>(),
            [(Some("temp"), "double", true), (Some("a"), "long", false)]
        );
        assert_eq!(outputs.expect("outputs").iter().map(told).collect::<Vec<_>>(), [(None, "any", true)]);
        let params = params.expect("params");
        assert_eq!(told(&params[0]), (Some("t"), "double", false));
        assert_eq!(params[0].default, Some(serde_json::json!(0.5)));
        assert_eq!(told(&params[1]), (Some("s"), "string (-1)", false));
    }

    #[test]
    fn types_in_words() {
        for (spec, wanted) in [
            (
                r#"{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 28, 28]}}"#,
                "tensor of float32 (-1, 28, 28)",
            ),
            (
                r#"{"type": "array", "items": {"type": "array", "items": {"type": "string"}}}"#,
                "array of array of string",
            ),
            (r#"{"type": "map", "values": {"type": "any"}}"#, "map of any"),
            (
                r#"{"type": "object", "properties": {"b": {"type": "long", "required": false}, "a": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "double"}}}}}}"#,
                "object {a: array of object {c: double}, b?: long}",
            ),
            (r#"{"type": "sparkml_vector"}"#, "sparkml_vector"),
        ] {
            let signature = signed(&format!("[{spec}]")).expect(spec);
            let inputs = signature.inputs.expect("inputs");
            assert_eq!(inputs.iter().map(told).collect::<Vec<_>>(), [(None, wanted, true)]);
        }
        let old = signed(r#"[{"type": "double", "name": "x", "optional": true}]"#).expect("2.9");
        assert_eq!(old.inputs.expect("inputs").iter().map(told).collect::<Vec<_>>(), [(Some("x"), "double", false)]);
    }

    #[test]
    fn no_signature_is_none() {
        for text in ["flavors: {}", "signature: null", "signature: {}", "signature: {inputs: null, outputs: ''}"] {
            assert_eq!(MlModel::parse(text.as_bytes()), Ok(MlModel::default()), "{text}");
        }
        // An empty list is one, as it is for MLflow.
        assert_eq!(signed("[]").expect("signed").inputs, Some(Vec::new()));
    }

    #[test]
    fn numbers_and_times_without_quotes_are_text() {
        let text =
            "mlflow_version: 2.10\nrun_id: 1234567890e123\nutc_time_created: 2023-01-01 00:00:00.5\nmodel_uuid: 0123";
        let model = MlModel::parse(text.as_bytes()).expect("sound");
        assert_eq!(model.mlflow_version.as_deref(), Some("2.10"));
        assert_eq!(model.run_id.as_deref(), Some("1234567890e123"));
        assert_eq!(model.model_uuid.as_deref(), Some("0123"));
        assert_eq!(model.utc_time_created.as_deref(), Some("2023-01-01 00:00:00.5"));
    }

    #[test]
    fn hostile_files_are_refused_in_a_line() {
        let bomb: String = (1..40).fold("x0: &x0 [a, a]\n".to_owned(), |mut text, n| {
            text.push_str(&format!("x{n}: &x{n} [*x{0}, *x{0}, *x{0}, *x{0}, *x{0}, *x{0}, *x{0}, *x{0}]\n", n - 1));
            text
        });
        let quoted = |json: &str| format!("signature: {{inputs: '{json}'}}");
        let arrays = 100_000;
        let deep_type = r#"{"type": "array", "items": "#.repeat(arrays);
        for text in [
            "",
            "a: b: c",
            "[1, 2]",
            "\u{0}",
            "signature: [1]",
            "run_id: a\nrun_id: b",
            &bomb,
            &"[".repeat(200_000),
            &"- ".repeat(200_000),
            &"{a: ".repeat(100_000),
            &"x".repeat(MOST + 1),
            &quoted("{}"),
            &quoted("[1]"),
            &quoted("[{}]"),
            &quoted(r#"[{"type": 3}]"#),
            &quoted(r#"[{"type": "tensor"}]"#),
            &quoted(r#"[{"type": "object", "properties": {"a": {}}}]"#),
            &quoted("nonsense"),
            &quoted(&"[".repeat(500_000)),
            &format!("signature:\n  inputs: '[{deep_type}'"),
        ] {
            let shown: String = text.chars().take(60).collect();
            let why = MlModel::parse(text.as_bytes()).expect_err(&shown);
            assert!(why.starts_with("MLmodel ") || why.contains(" of the signature in MLmodel "), "{shown}: {why}");
            assert!(!why.contains('\n') && why.len() < 400, "{shown}: {why}");
        }
        assert!(MlModel::parse(b"\xff\xfe\xfa").is_err());
    }
}
