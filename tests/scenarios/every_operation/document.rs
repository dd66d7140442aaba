//! The operations of `openapi.yaml`, as far as the scenario needs them. Knows nothing of requests.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;

/// One operation of `openapi.yaml`.
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    /// None: it needs no key.
    pub(crate) scope: Option<String>,
    /// Names of the parameters of its query.
    pub(crate) query: Vec<String>,
    /// Names of the fields of its JSON body.
    pub(crate) fields: Vec<String>,
    /// Status codes it says it may answer with.
    pub(crate) statuses: BTreeSet<String>,
}

/// All of them.
pub(crate) fn operations() -> Vec<Operation> {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.yaml"));
    let document: Value = yaml_serde::from_str(text).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, said) in item.as_object().unwrap() {
            all.push(Operation::read(&document, path, method, said));
        }
    }
    let ids: BTreeSet<&str> = all.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids.len(), all.len(), "an operationId stands there twice");
    all
}

impl Operation {
    fn read(document: &Value, path: &str, method: &str, said: &Value) -> Self {
        let id = said["operationId"].as_str();
        let security = said["security"].as_array();
        let security = security.unwrap_or_else(|| panic!("{path} says nothing about keys"));
        let needs = security[0]["api_key"].as_array();
        // One scope exactly, so that a key can be tried that has all but this one.
        let scope = needs.map(|scopes| match scopes.as_slice() {
            [scope] => scope.as_str().unwrap().to_owned(),
            _ => panic!("{method} {path} does not name one scope: {scopes:?}"),
        });
        let parameters = said["parameters"].as_array().into_iter().flatten();
        let query = parameters.filter(|one| one["in"] == "query");
        let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
        let body = &said["requestBody"]["content"]["application/json"]["schema"];
        let statuses = said["responses"].as_object().unwrap().keys();
        Self {
            id: id.unwrap_or_else(|| panic!("{path} has no id")).to_owned(),
            method: method.to_uppercase().parse().unwrap(),
            path: path.to_owned(),
            scope,
            query: query.map(name).collect(),
            fields: fields(document, body),
            statuses: statuses.cloned().collect(),
        }
    }

    /// The path with these parameters.
    pub(crate) fn at(&self, parameters: &[String], query: &str) -> String {
        let mut pieces = self.path.split('{');
        let mut path = pieces.next().unwrap().to_owned();
        let mut given = parameters.iter();
        for piece in pieces {
            let given = given.next();
            path += given.unwrap_or_else(|| panic!("{}: too few parameters", self.id));
            path += piece.split_once('}').unwrap().1;
        }
        assert!(given.next().is_none(), "{}: too many parameters", self.id);
        path + query
    }

    /// Whether it says that it may answer with this status.
    pub(crate) fn tells(&self, status: u16) -> bool {
        self.statuses.contains(&status.to_string())
    }
}

/// What an object of this schema may hold, also where it is one of several.
fn fields(document: &Value, schema: &Value) -> Vec<String> {
    let schema = match schema["$ref"].as_str() {
        Some(at) => document.pointer(at.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    let own = schema["properties"].as_object().into_iter().flatten();
    let own = own.map(|(name, _)| name.to_owned());
    let choices = ["oneOf", "anyOf", "allOf"].map(|kind| schema[kind].as_array());
    let choices = choices.into_iter().flatten().flatten();
    own.chain(choices.flat_map(|one| fields(document, one)))
        .collect()
}
