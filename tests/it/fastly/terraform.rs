//! The shipped Terraform, parsed and evaluated as far as the service is concerned.

use hcl::eval::{Context, Evaluate as _};
use hcl::{Block, Body, Value};

use super::syntax::{Condition, parse_condition};
use crate::harness::daemon::shipped;

/// A backend. Times are in milliseconds.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: String,
    /// Which requests it gets; the one without a condition gets the rest.
    pub(super) condition: Option<Condition>,
    pub(super) max_conn: u64,
    pub(super) connect: u64,
    pub(super) first_byte: u64,
    pub(super) between_bytes: u64,
    pub(super) has_shield: bool,
}

/// All files of the folder.
pub(super) fn files() -> Vec<Body> {
    ["main.tf", "variables.tf", "outputs.tf"]
        .map(|file| hcl::parse(&shipped(&format!("fastly/{file}"), &[])).unwrap())
        .into()
}

/// The block of `body` with this identifier and these labels.
pub(super) fn block<'a>(body: &'a Body, identifier: &str, labels: &[&str]) -> &'a Block {
    let has_labels = |block: &Block| {
        block.labels().iter().map(hcl::BlockLabel::as_str).eq(labels.iter().copied())
    };
    let mut blocks = body.blocks().filter(|block| block.identifier() == identifier);
    blocks.find(|block| has_labels(block)).unwrap_or_else(|| panic!("no {identifier} {labels:?}"))
}

/// The service.
pub(super) fn service(files: &[Body]) -> &Body {
    block(&files[0], "resource", &["fastly_service_vcl", "flagcast"]).body()
}

/// The service's backends, with variables as they are by default.
pub(super) fn pools(files: &[Body]) -> Vec<Pool> {
    let service = service(files);
    let context = context(&files[1]);
    let conditions: Vec<(String, String)> = service
        .blocks()
        .filter(|block| block.identifier() == "condition")
        .map(|block| {
            assert_eq!(text(block, "type", &context), Some("REQUEST".to_owned()));
            let get = |name: &str| text(block, name, &context).unwrap();
            (get("name"), get("statement"))
        })
        .collect();
    let backends = service.blocks().filter(|block| block.identifier() == "backend");
    backends
        .map(|block| {
            let number = |name: &str| get(block, name, &context).unwrap().as_u64().unwrap();
            let condition = text(block, "request_condition", &context).map(|wanted| {
                let mut known = conditions.iter();
                let (_, statement) = known.find(|(name, _)| *name == wanted).unwrap();
                parse_condition(statement).unwrap()
            });
            Pool {
                name: text(block, "name", &context).unwrap(),
                condition,
                max_conn: number("max_conn"),
                connect: number("connect_timeout"),
                first_byte: number("first_byte_timeout"),
                between_bytes: number("between_bytes_timeout"),
                has_shield: text(block, "shield", &context)
                    .is_some_and(|shield| !shield.is_empty()),
            }
        })
        .collect()
}

/// The variables: their defaults, and a text for each that has none.
fn context(variables: &Body) -> Context<'static> {
    let mut values = hcl::Map::new();
    for block in variables.blocks() {
        assert_eq!(block.identifier(), "variable");
        let name = block.labels()[0].as_str();
        assert!(text(block, "description", &Context::new()).is_some(), "{name} says what it is");
        let value = get(block, "default", &Context::new()).unwrap_or_else(|| name.into());
        values.insert(name.to_owned(), value);
    }
    let mut context = Context::new();
    context.declare_var("var", Value::Object(values));
    context
}

/// The value of an attribute.
pub(super) fn get(block: &Block, name: &str, context: &Context<'_>) -> Option<Value> {
    let attribute = block.body().attributes().find(|attribute| attribute.key() == name)?;
    Some(attribute.expr().evaluate(context).unwrap())
}

fn text(block: &Block, name: &str, context: &Context<'_>) -> Option<String> {
    get(block, name, context).map(|value| value.as_str().unwrap().to_owned())
}
