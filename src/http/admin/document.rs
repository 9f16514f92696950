//! The OpenAPI document of the management API.
//!
//! Paths, bodies and answers come from the handlers. What follows from a rule of every route (which
//! problems can come, which headers count, what a key may hold, where an answer leads) is laid over
//! them here, so that no handler has to repeat it and none can forget it.

use serde_json::{Map, Value as Json, json};
use utoipa::{OpenApi, PartialSchema};

use super::call::IDEMPOTENCY_KEY_MAX;
use super::kinds;

/// Title and login of the generated document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Flagcast management API",
        description = "Projects, environments, features, flags, segments, identities, webhooks, tokens and \
            the audit trail. \
            Errors are RFC 9457 problems with a stable `code`; lists are paged by cursor.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    security(("token" = []))
)]
pub(super) struct Document;

/// A status that means that nothing was done.
struct Refusal {
    status: &'static str,
    name: &'static str,
    /// Every `code` that comes with it.
    codes: &'static [&'static str],
    about: &'static str,
}

/// Every problem of this API, as `errors.rs` makes them.
const REFUSALS: [Refusal; 11] = [
    Refusal {
        status: "400",
        name: "Invalid",
        codes: &[
            "malformed_json",
            "invalid_field",
            "invalid_cursor",
            "invalid_query",
            "invalid_header",
            "invalid_path",
        ],
        about: "The request breaks a rule.",
    },
    Refusal {
        status: "401",
        name: "Unauthorized",
        codes: &["token_missing", "token_invalid"],
        about: "There is no valid token.",
    },
    Refusal {
        status: "403",
        name: "Forbidden",
        codes: &["role_too_small", "outside_scope", "read_only"],
        about: "The token may not do this.",
    },
    Refusal {
        status: "404",
        name: "NotFound",
        codes: &["not_found"],
        about: "Something that is named does not exist.",
    },
    Refusal {
        status: "408",
        name: "TooSlow",
        codes: &["body_too_slow"],
        about: "The body took too long.",
    },
    Refusal {
        status: "409",
        name: "Conflict",
        codes: &["already_exists", "limit_reached", "flag_dependency"],
        about: "What there is already stands against it.",
    },
    Refusal {
        status: "412",
        name: "Moved",
        codes: &["revision_conflict"],
        about: "The environment is not at the revision of `If-Match`.",
    },
    Refusal {
        status: "413",
        name: "TooLarge",
        codes: &["body_too_large"],
        about: "The body is too large.",
    },
    Refusal {
        status: "422",
        name: "KeyReused",
        codes: &["idempotency_key_reused"],
        about: "The idempotency key came with another request before.",
    },
    Refusal {
        status: "429",
        name: "TooMany",
        codes: &["too_many_requests"],
        about: "The token sends too many requests.",
    },
    Refusal {
        status: "503",
        name: "Unavailable",
        codes: &["store_unavailable"],
        about: "The store does not answer; nothing was changed.",
    },
];

/// What the rules need to know of an operation.
struct Operation<'a> {
    path: &'a str,
    changes: bool,
    deletes: bool,
    has_query: bool,
}

impl Operation<'_> {
    fn names_something(&self) -> bool {
        self.path.contains('{')
    }

    fn is_about_one_environment(&self) -> bool {
        self.path.contains("{environment}")
    }

    fn can_be_refused_with(&self, status: &str) -> bool {
        let is_about_tokens = self.path.ends_with("/tokens");
        match status {
            "400" => self.changes || self.has_query || self.names_something(),
            "403" => !self.path.ends_with("/token"),
            // A new token may name a project and an environment in its body.
            "404" => self.names_something() || (self.changes && is_about_tokens),
            "408" | "413" | "422" => self.changes,
            // A feature that the rules of a segment read stays.
            "409" => self.changes && (!self.deletes || self.path.ends_with("/features/{feature}")),
            "412" => self.changes && self.is_about_one_environment(),
            _ => true,
        }
    }
}

/// The OpenAPI 3.1 document of the management API, as JSON.
#[must_use]
pub fn openapi() -> String {
    let mut document = json!(super::routes().split_for_parts().1);
    let paths = document["paths"].take();
    document["paths"] = complete(paths);
    let components = &mut document["components"];
    components["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
    components["responses"] = REFUSALS.iter().map(refusal).collect::<Map<_, _>>().into();
    components["schemas"]["Problem"] = problem();
    for (name, rule) in refinements() {
        if let (Some(schema), Json::Object(rule)) =
            (components["schemas"][name].as_object_mut(), rule)
        {
            schema.extend(rule);
        }
    }
    format!("{document:#}")
}

/// What a derive cannot say of a body, in the terms of JSON Schema.
fn refinements() -> [(&'static str, Json); 6] {
    let given = |field: &str, kind: &str| json!({ "required": [field], "properties": { field: { "type": kind } } });
    let state = json!({ "anyOf": [
        given("enabled", "boolean"),
        { "required": ["value"] },
        given("weights", "object"),
    ] });
    let settings = json!({ "anyOf": [
        given("name", "string"),
        given("hide_disabled_flags", "boolean"),
        given("allow_client_traits", "boolean"),
        given("hide_sensitive_data", "boolean"),
        given("persist_traits", "boolean"),
    ] });
    let project_of_environment = json!({
        "if": {
            "required": ["environment"],
            "properties": { "environment": { "type": "string" } },
        },
        "then": { "required": ["project"], "properties": { "project": { "type": "string" } } },
    });
    [
        ("FlagPatch", state.clone()),
        ("BatchItem", state),
        ("EnvironmentPatch", settings),
        ("NewTokenBody", project_of_environment),
        ("Rule", json!({ "additionalProperties": false })),
        ("Condition", json!({ "additionalProperties": false })),
    ]
}

fn complete(paths: Json) -> Json {
    let Json::Object(mut paths) = paths else { return paths };
    let places = places(&paths);
    for (path, item) in &mut paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            let about = Operation {
                path,
                changes: method != "get",
                deletes: method == "delete",
                has_query: text_of(operation, "parameters").contains("\"in\":\"query\""),
            };
            let tag = operation["tags"][0].as_str().unwrap_or_default();
            operation["operationId"] = json!(operation_id(tag, &operation["operationId"]));
            complete_parameters(operation, &about);
            complete_responses(operation, &about);
            if method == "post" {
                operation["responses"]["201"]["links"] = links(path, &places);
            }
        }
    }
    Json::Object(paths)
}

/// Every path with its methods, and what the operations are called.
fn places(paths: &Map<String, Json>) -> Vec<(String, String)> {
    let mut places = Vec::new();
    for (path, item) in paths {
        for operation in item.as_object().into_iter().flat_map(Map::values) {
            let tag = operation["tags"][0].as_str().unwrap_or_default();
            places.push((path.clone(), operation_id(tag, &operation["operationId"])));
        }
    }
    places
}

/// Handlers of different modules have the same names.
fn operation_id(tag: &str, handler: &Json) -> String {
    format!("{tag}_{}", handler.as_str().unwrap_or_default())
}

fn text_of(operation: &Json, field: &str) -> String {
    operation[field].to_string()
}

fn complete_parameters(operation: &mut Json, about: &Operation<'_>) {
    let mut parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    for parameter in &mut parameters {
        if parameter["in"] == "path"
            && let Some(schema) = kind_of(parameter["name"].as_str().unwrap_or_default())
        {
            parameter["schema"] = schema;
        }
        // An optional parameter can be left out; there is no null in a URL.
        if let Some(Json::Array(types)) = parameter.pointer_mut("/schema/type") {
            types.retain(|kind| kind != "null");
        }
    }
    if about.changes {
        parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same key with the same request: it is done once, and answered as then.",
            "schema": { "type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_MAX,
                "pattern": "^[\\x21-\\x7E]([\\x20-\\x7E]*[\\x21-\\x7E])?$" },
        }));
    }
    if about.changes && about.is_about_one_environment() {
        parameters.push(json!({
            "name": "If-Match",
            "in": "header",
            "description": "The revision that the environment must be at, in quotes; `*` for any.",
            "schema": { "type": "string", "pattern": "^(\\*|\"[0-9]{1,19}\")$" },
        }));
    }
    operation["parameters"] = json!(parameters);
}

/// What a part of a path may be.
fn kind_of(parameter: &str) -> Option<Json> {
    let schema = match parameter {
        "project" | "environment" | "segment" => kinds::Key::schema(),
        "feature" | "variant" => kinds::FeatureKey::schema(),
        "identifier" => kinds::Identifier::schema(),
        "id" | "webhook" | "delivery" => kinds::Id::schema(),
        _ => return None,
    };
    Some(json!(schema))
}

fn complete_responses(operation: &mut Json, about: &Operation<'_>) {
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, response) in &mut *responses {
        if response["description"].as_str().is_none_or(str::is_empty) {
            let made = if status == "201" { "It was made." } else { "As it is now." };
            response["description"] = json!(made);
        }
        response["headers"] = success_headers(about);
    }
    for Refusal { status, name, .. } in &REFUSALS {
        if about.can_be_refused_with(status) {
            let response = json!({ "$ref": format!("#/components/responses/{name}") });
            responses.insert((*status).to_owned(), response);
        }
    }
}

fn success_headers(about: &Operation<'_>) -> Json {
    let mut headers = json!({
        "Cache-Control": { "required": true, "schema": { "const": "no-store" } },
    });
    if about.changes || about.is_about_one_environment() {
        headers["ETag"] = json!({
            "description": "The revision of the one environment that this is about, for `If-Match`.",
            "schema": { "type": "string", "pattern": "^\"[0-9]+\"$" },
        });
    }
    if about.changes {
        headers["Idempotency-Replayed"] = json!({
            "description": "The request was done before; secrets are null.",
            "schema": { "type": "string", "const": "true" },
        });
    }
    headers
}

fn refusal(refusal: &Refusal) -> (String, Json) {
    let Refusal { status, name, codes, about } = refusal;
    let status: u16 = status.parse().unwrap_or_default();
    let mut response = json!({
        "description": about,
        "headers": {
            "Cache-Control": { "required": true, "schema": { "const": "no-store" } },
        },
        "content": { "application/problem+json": { "schema": {
            "allOf": [{ "$ref": "#/components/schemas/Problem" }],
            "properties": { "status": { "const": status }, "code": { "enum": codes } },
        } } },
    });
    let headers = &mut response["headers"];
    match status {
        401 => {
            headers["WWW-Authenticate"] =
                json!({ "required": true, "schema": { "const": "Bearer" } });
        }
        429 | 503 => {
            headers["Retry-After"] = json!({
                "description": "Seconds.",
                "required": true,
                "schema": { "type": "integer", "minimum": 1 },
            });
        }
        _ => {}
    }
    ((*name).to_owned(), response)
}

fn problem() -> Json {
    json!({
        "type": "object",
        "description": "Why nothing was done, as RFC 9457 has it.",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": { "const": "about:blank" },
            "title": { "type": "string", "description": "The status in words." },
            "status": { "type": "integer" },
            "code": { "type": "string", "description": "Stable; programs may rely on it." },
            "detail": { "type": "string", "description": "What is wrong, which rule, what to do." },
            "revision": {
                "type": "integer",
                "description": "With 412: where the environment is.",
            },
        },
    })
}

/// Where one can go with what was made at `path`: to every operation that needs no more than its key.
fn links(path: &str, places: &[(String, String)]) -> Json {
    let own = names(path);
    let mut links = Map::new();
    for (place, operation) in places {
        let Some(rest) = place.strip_prefix(path).and_then(|rest| rest.strip_prefix("/{")) else {
            continue;
        };
        let Some((made, rest)) = rest.split_once('}') else { continue };
        if rest.contains('{') {
            continue;
        }
        let field = if matches!(made, "id" | "webhook" | "delivery") { "id" } else { "key" };
        let mut parameters: Map<String, Json> = own
            .iter()
            .map(|name| ((*name).to_owned(), json!(format!("$request.path.{name}"))))
            .collect();
        parameters.insert(made.to_owned(), json!(format!("$response.body#/{field}")));
        links.insert(
            operation.clone(),
            json!({ "operationId": operation, "parameters": parameters }),
        );
    }
    Json::Object(links)
}

/// The names of a path's parameters.
fn names(path: &str) -> Vec<&str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::PREFIX;
    use super::*;

    fn operations() -> Vec<Json> {
        let document: Json = serde_json::from_str(&openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap().values();
        paths.flat_map(|item| item.as_object().unwrap().values().cloned()).collect()
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_says_how_it_is_refused() {
        let operations = operations();
        let names: HashSet<String> =
            operations.iter().map(|operation| operation["operationId"].to_string()).collect();
        assert_eq!(names.len(), operations.len(), "give one of two an `operation_id`");
        for operation in operations {
            assert!(operation["responses"]["401"].is_object(), "{operation}");
            assert!(operation["responses"].get("default").is_none(), "{operation}");
        }
    }

    #[test]
    fn refinements_find_their_bodies() {
        let document: Json = serde_json::from_str(&openapi()).unwrap();
        for (name, _) in refinements() {
            let schema = &document["components"]["schemas"][name];
            assert_eq!(schema["type"], "object", "there is no {name}");
        }
    }

    #[test]
    fn what_is_made_leads_to_what_can_be_done_with_it() {
        let document: Json = serde_json::from_str(&openapi()).unwrap();
        let made = &document["paths"][format!("{PREFIX}/projects")]["post"]["responses"]["201"];
        let parameters = &made["links"]["projects_read"]["parameters"];
        assert_eq!(parameters, &json!({ "project": "$response.body#/key" }));
        assert!(made["links"].get("environments_read").is_none(), "it needs one more key");
    }
}
