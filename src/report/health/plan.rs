//! The checks that would be made.

use serde_json::{Value, json};

use crate::domain::health::Layer;
use crate::health::plan::Planned;

/// The list for people.
pub fn text(stack: &[(&'static str, String)], planned: &[Planned]) -> String {
    let mut out: String = stack.iter().map(|(part, address)| format!("{part:<10} {address}\n")).collect();
    let width = planned.iter().map(|p| p.id.len()).max().unwrap_or_default();
    let mut layer = None;
    for check in planned {
        let of = Layer::of(&check.id);
        if of != layer {
            out.push('\n');
            layer = of;
        }
        let needed = if check.needed { " (others stand on it)" } else { "" };
        out.push_str(&format!("  {:<width$}  {}{needed}\n", check.id, check.about));
    }
    out
}

/// The same for documents.
pub fn value(stack: &[(&'static str, String)], planned: &[Planned]) -> Value {
    let stack: serde_json::Map<String, Value> =
        stack.iter().map(|(part, address)| ((*part).to_owned(), address.clone().into())).collect();
    let checks: Vec<Value> =
        planned.iter().map(|p| json!({"id": p.id, "about": p.about, "needed": p.needed})).collect();
    json!({"stack": stack, "checks": checks})
}
