//! The OpenAPI document, from the table that the routes are made from.

use serde_json::{Map, Value, json};

use crate::dispatch::{LARGEST_PAGE, ROOT, USUAL_PAGE};
use crate::operation::{Need, OPERATIONS, Operation, Reach, Verb};
use crate::schema;

/// The OpenAPI 3.1 document of the admin API.
pub fn openapi() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry([ROOT, operation.path].concat()).or_insert_with(|| json!({}));
        let verb = match operation.verb {
            Verb::Get => "get",
            Verb::Put => "put",
            Verb::Post => "post",
            Verb::Delete => "delete",
        };
        path[verb] = describe(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Anbiq admin API",
            "version": "1",
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "adminKey": [] }],
        "tags": tags(),
        "paths": paths,
        "components": {
            "securitySchemes": { "adminKey": {
                "type": "http",
                "scheme": "bearer",
                "description": "an admin key, `ak-anbiq-...`; `anbiq admin key issue` makes the first one",
            } },
            "schemas": schema::schemas(),
            "responses": { "Problem": {
                "description": "why the request was not carried out (RFC 9457)",
                "content": { "application/problem+json": { "schema": schema::reference("Problem") } },
            } },
        },
    })
}

const DESCRIPTION: &str = "Accounts, keys, plans, prices, terms and grants of an Anbiq gateway. \
    Every request needs an admin key. Its role says what it may do: a viewer reads; an operator opens and closes accounts, \
    issues and revokes keys, sets budgets; a steward issues terms, decides on grants, sets prices and plans; an owner does all of it, \
    and issues admin keys. A key may be limited to one account: what is of another account is not there for it.\n\n\
    Money is US dollars as decimal strings, times are milliseconds since 1970 in UTC. Lists come in pages: `next` of one page is \
    `after` of the next. A field or parameter that is not known is an error. Every change is journalled with the key that made it.";

fn tags() -> Value {
    let mut names: Vec<&str> = OPERATIONS.iter().map(|operation| operation.tag).collect();
    names.dedup();
    names.into_iter().map(|name| json!({ "name": name })).collect()
}

fn describe(operation: &Operation) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": format!("{} {}{}", who(operation.need), what(operation.reach), conditions(operation)),
        "parameters": parameters(operation),
        "responses": responses(operation),
    });
    if let Some(schema) = operation.takes {
        let content = json!({ "application/json": { "schema": schema::reference(schema) } });
        described["requestBody"] = json!({ "required": true, "content": content });
    }
    described
}

fn who(need: Need) -> String {
    let roles: Vec<&str> = need.roles().iter().map(|role| role.as_str()).collect();
    format!("For the roles {}.", roles.join(", "))
}

const fn what(reach: Reach) -> &'static str {
    match reach {
        Reach::House => "Not for keys that are limited to one account.",
        Reach::Account => "A key that is limited to one account sees only what is of that.",
        Reach::Everyone => "The same for every key.",
    }
}

/// The conditional headers of RFC 9110 are no parameters of an operation: they mean the same everywhere.
fn conditions(operation: &Operation) -> &'static str {
    match operation.verb {
        Verb::Get => " With an `ETag` in `If-None-Match` the answer is 304 where nothing has changed.",
        Verb::Put if operation.shown_by().is_some() => {
            " With `If-Match` it is done only if the thing still has that `ETag`, with `If-None-Match: *` only if there is none."
        }
        _ => "",
    }
}

fn parameters(operation: &Operation) -> Value {
    let mut all = Vec::new();
    for name in operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        all.push(json!({ "name": name, "in": "path", "required": true, "schema": schema::of_path(name) }));
    }
    let optional = |place: &str, name: &str, schema: Value, words: &str| json!({ "name": name, "in": place, "required": false, "schema": schema, "description": words });
    for (name, schema) in operation.query {
        all.push(optional("query", name, schema::reference(schema), "only what is of this"));
    }
    if operation.lists {
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": USUAL_PAGE });
        all.push(optional("query", "limit", limit, "most entries of the page"));
        let after = schema::of_cursor(operation.id);
        all.push(optional("query", "after", after, "`next` of the page before"));
    }
    if operation.verb == Verb::Post {
        let schema = json!({ "type": "string", "pattern": "^[!-~]{1,255}$" });
        let words = "a name of this request: under one name a request is carried out once in a day";
        all.push(optional("header", "Idempotency-Key", schema, words));
    }
    Value::Array(all)
}

fn responses(operation: &Operation) -> Value {
    let (status, name) = operation.gives;
    let mut success = json!({
        "description": if status == 201 { "made" } else { "done" },
        "content": { "application/json": { "schema": schema::reference(name) } },
    });
    let text = json!({ "schema": { "type": "string" } });
    if status == 201 {
        success["headers"]["Location"] = text.clone();
    }
    let mut all = Map::new();
    if operation.verb == Verb::Get {
        success["headers"]["ETag"] = text;
        all.insert("304".to_owned(), json!({ "description": "as it was known" }));
    }
    all.insert(status.to_string(), success);
    let mut problems = vec![400, 401, 403, 404, 408, 500, 503];
    if operation.verb != Verb::Get {
        problems.push(409);
    }
    if operation.verb == Verb::Put && operation.shown_by().is_some() {
        problems.push(412);
    }
    if operation.verb != Verb::Get {
        problems.extend([413, 422]);
    }
    if operation.takes.is_some() {
        problems.push(415);
    }
    problems.sort_unstable();
    for status in problems {
        all.insert(status.to_string(), json!({ "$ref": "#/components/responses/Problem" }));
    }
    Value::Object(all)
}
