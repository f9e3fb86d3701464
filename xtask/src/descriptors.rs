//! The tables of messages and routes, written from what protoc says of the .proto files.
//!
//! prost's own descriptor types drop the annotations that they do not know, and those are what a route is made
//! of; so the few parts that are needed are spelled out here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Type>,
    #[prost(message, repeated, tag = "5")]
    enums: Vec<Enumeration>,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    nested: Vec<Type>,
    #[prost(message, repeated, tag = "4")]
    enums: Vec<Enumeration>,
    #[prost(message, repeated, tag = "8")]
    oneofs: Vec<Oneof>,
}

#[derive(Clone, PartialEq, Message)]
struct Field {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    number: i32,
    #[prost(int32, tag = "4")]
    label: i32,
    #[prost(int32, tag = "5")]
    kind: i32,
    #[prost(string, tag = "6")]
    type_name: String,
    #[prost(int32, optional, tag = "9")]
    oneof: Option<i32>,
    #[prost(string, tag = "10")]
    json_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Oneof {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Enumeration {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    values: Vec<EnumValue>,
}

#[derive(Clone, PartialEq, Message)]
struct EnumValue {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    number: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    input: String,
    #[prost(string, tag = "3")]
    output: String,
    #[prost(message, optional, tag = "4")]
    options: Option<Options>,
    #[prost(bool, tag = "5")]
    client_streams: bool,
    #[prost(bool, tag = "6")]
    server_streams: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(message, optional, tag = "72295728")]
    http: Option<Rule>,
}

#[derive(Clone, PartialEq, Message)]
struct Rule {
    #[prost(string, tag = "4")]
    post: String,
    #[prost(string, tag = "7")]
    body: String,
    #[prost(message, repeated, tag = "11")]
    more: Vec<Rule>,
}

/// Everything by its full name with a leading dot, as descriptors refer to it.
#[derive(Default)]
struct Names<'a> {
    messages: BTreeMap<String, &'a Type>,
    enums: BTreeMap<String, &'a Enumeration>,
}

impl<'a> Names<'a> {
    fn add(&mut self, scope: &str, messages: &'a [Type], enums: &'a [Enumeration]) {
        for message in messages {
            let name = format!("{scope}.{}", message.name);
            self.add(&name, &message.nested, &message.enums);
            self.messages.insert(name, message);
        }
        for enumeration in enums {
            self.enums.insert(format!("{scope}.{}", enumeration.name), enumeration);
        }
    }

    /// Notes a message and all that it holds.
    fn reach(&self, name: &str, reached: &mut BTreeSet<String>) -> Result<()> {
        if !reached.insert(name.to_string()) || self.enums.contains_key(name) {
            return Ok(());
        }
        let message = self.messages.get(name).with_context(|| format!("no message {name}"))?;
        for field in message.fields.iter().filter(|field| !field.type_name.is_empty()) {
            self.reach(&field.type_name, reached)?;
        }
        Ok(())
    }
}

/// The tables as Rust, for `proto::descriptor` to include.
///
/// # Errors
/// A .proto file uses what the tables cannot express.
pub fn tables(set: &[u8]) -> Result<String> {
    let set = FileSet::decode(set)?;
    let mut names = Names::default();
    for file in &set.files {
        names.add(&format!(".{}", file.package), &file.messages, &file.enums);
    }
    let (mut routes, mut reached) = (String::new(), BTreeSet::new());
    for file in &set.files {
        for service in &file.services {
            for method in &service.methods {
                let options = method.options.as_ref();
                let Some(rule) = options.and_then(|options| options.http.as_ref()) else {
                    continue;
                };
                names.reach(&method.input, &mut reached)?;
                names.reach(&method.output, &mut reached)?;
                for rule in std::iter::once(rule).chain(&rule.more) {
                    route(&mut routes, file, service, method, rule)?;
                }
            }
        }
    }
    let mut out = String::from("// Written by `cargo xtask codegen` from proto/*.proto.\n");
    write!(
        out,
        "\n/// Every path of the JSON API.\npub static ROUTES: &[Route] = &[\n{routes}];\n"
    )?;
    for name in &reached {
        match names.messages.get(name) {
            Some(found) => message(&mut out, name, found)?,
            None => enumeration(&mut out, name, names.enums[name])?,
        }
    }
    Ok(out)
}

fn route(
    out: &mut String,
    file: &File,
    service: &Service,
    method: &Method,
    rule: &Rule,
) -> Result<()> {
    let grpc = format!("/{}.{}/{}", file.package, service.name, method.name);
    ensure!(rule.post.starts_with('/') && !rule.post.contains('{'), "{grpc}: no plain POST path");
    ensure!(rule.body == "*", "{grpc}: the body is not the whole request");
    writeln!(
        out,
        "    Route {{ http: {:?}, grpc: {grpc:?}, input: &{}, output: &{}, client_streams: {}, \
         server_streams: {} }},",
        rule.post,
        constant(&method.input),
        constant(&method.output),
        method.client_streams,
        method.server_streams
    )?;
    Ok(())
}

fn message(out: &mut String, name: &str, message: &Type) -> Result<()> {
    let full = &name[1..];
    writeln!(out, "\nstatic {}: Message = Message {{\n    name: {full:?},", constant(name))?;
    writeln!(out, "    fields: &[")?;
    for field in &message.fields {
        let kind = match field.kind {
            3 => "Int64".to_string(),
            4 => "Uint64".to_string(),
            5 => "Int32".to_string(),
            8 => "Bool".to_string(),
            9 => "String".to_string(),
            11 => format!("Message(&{})", constant(&field.type_name)),
            12 => "Bytes".to_string(),
            13 => "Uint32".to_string(),
            14 => format!("Enum(&{})", constant(&field.type_name)),
            other => bail!("{full}.{}: the tables know no type {other}", field.name),
        };
        let oneof = match field.oneof {
            None => "None".to_string(),
            Some(index) => {
                let oneof = message.oneofs.get(index as usize).context("a choice has a name")?;
                format!("Some({:?})", format!("{full}.{}", oneof.name))
            }
        };
        writeln!(
            out,
            "        Field {{ number: {}, name: {:?}, json_name: {:?}, kind: Kind::{kind}, repeated: {}, \
             oneof: {oneof} }},",
            field.number,
            field.name,
            field.json_name,
            field.label == 3
        )?;
    }
    Ok(writeln!(out, "    ],\n}};")?)
}

fn enumeration(out: &mut String, name: &str, enumeration: &Enumeration) -> Result<()> {
    let values: Vec<String> = enumeration
        .values
        .iter()
        .map(|value| format!("({:?}, {})", value.name, value.number))
        .collect();
    let (name, full, values) = (constant(name), &name[1..], values.join(", "));
    Ok(writeln!(out, "\nstatic {name}: Enum = Enum {{ name: {full:?}, values: &[{values}] }};")?)
}

/// `.etcdserverpb.PutRequest` as `ETCDSERVERPB_PUT_REQUEST`.
fn constant(name: &str) -> String {
    let mut out = String::new();
    let mut before = '.';
    for c in name.chars().skip(1) {
        if c.is_uppercase() && before.is_lowercase() {
            out.push('_');
        }
        out.push(if c == '.' { '_' } else { c.to_ascii_uppercase() });
        before = c;
    }
    out
}
